"""Runs cases through the checks alone, outside any sandbox: ``python -m tests.hostile.gates onnx- npz-``.

The sandbox would hide that a payload ran; here nothing would, so an untouched marker is proof.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from tests.hostile.cases import READY, STATUS_BY_CODE, Case
from tests.hostile.catalogue import all_cases
from workers.compression import data, registry
from workers.compression.context import Context
from workers.compression.specs.containers.sniffing import sniff_dataset, sniff_model
from workers.compression.specs.errors import EngineError
from workers.compression.specs.job import DatasetFields

MEMORY_BYTES = 8 << 30


def verdict(case: Case, folder: Path) -> dict[str, object]:
    """The code and reason the checks end with, the seconds they took, and whether the payload ran."""
    path = case.build(folder)
    out = folder / "out"
    out.mkdir()
    code, reason, detail = READY, None, ""
    start = perf_counter()
    try:
        if case.kind == "dataset":
            sniff_dataset(path, case.filename)
            data.inspect(path, case.filename, DatasetFields(), out)
        else:
            family = registry.family(sniff_model(path))
            family.inspect(path, out, Context(scratch=folder))
    except EngineError as error:
        code, reason, detail = error.code.value, error.reason, error.detail
    except MemoryError:
        # The supervisor turns this into the same refusal.
        code, reason, detail = "too_large", None, "memory limit"
    except Exception as error:  # noqa: BLE001 - reported, so that one case does not hide the others
        code, detail = "internal", f"{type(error).__name__}: {error}"[:300]
    return {
        "name": case.name,
        "code": code,
        "reason": reason,
        "detail": detail,
        "seconds": round(perf_counter() - start, 2),
        "right": code == READY in case.codes or case.allows(STATUS_BY_CODE.get(code, 0), code, reason),
        "payload_ran": (folder / "markers" / case.name).exists(),
    }


def main(wanted: list[str]) -> None:
    """Prints JSON lines for each case whose name starts with one of ``wanted``; all, if there are none."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for case in all_cases():
        if case.name.startswith(tuple(wanted) or ("",)):
            _write({"start": case.name})
            with tempfile.TemporaryDirectory() as folder:
                _write(verdict(case, Path(folder)))


def _write(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
