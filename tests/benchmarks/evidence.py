"""Runs every technique on a real model beside its best peer and writes ``EVIDENCE.md`` and the catalogue's rows.

    python -m tests.benchmarks.evidence [--only quantize]

Each row goes through the engine as a user's job does: inspection, recipe, stored artifact re-opened in a fresh process,
paired measurement. The peer's artifact is then held against the same original on the same rows.
"""

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

from pydantic import TypeAdapter

from tests.benchmarks import peers
from tests.benchmarks.rows import Row
from workers.compression import alone
from workers.compression.specs.evidence import Evidence, load_evidence
from workers.compression.specs.recipe import STEPS_BY_KEY
from workers.compression.specs.report import Report

JSON = Path("workers/compression/specs/evidence.json")
MARKDOWN = Path("EVIDENCE.md")


def _all_rows() -> tuple[Row, ...]:
    """Those of ``rows.py``, then those of every ``rows_<topic>.py``."""
    topics = ["rows", *sorted(file.stem for file in Path(__file__).parent.glob("rows_*.py"))]
    modules = [importlib.import_module(f"tests.benchmarks.{topic}") for topic in topics]
    return tuple(row for module in modules for row in module.ROWS)


ROWS = _all_rows()


def measure(row: Row) -> Evidence:
    """One row: ours through the whole pipeline, then the peer on the same files."""
    with tempfile.TemporaryDirectory(prefix="pressroom-evidence-") as name:
        folder = Path(name)
        model = row.write_model(folder)
        data = row.write_data(folder) if row.write_data else None
        recipe = folder / "recipe.json"
        recipe.write_text(json.dumps([row.step]), "utf-8")
        train = row.write_train(folder) if row.write_train else None
        student = row.write_student(folder) if row.write_student else None
        command = [str(model), "--recipe", str(recipe), "--output", str(folder / "made")]
        for option, path in (("--data", data), ("--train", train), ("--student", student)):
            command += [option, str(path)] if path else []
        if alone.main(command) != 0:
            raise SystemExit(f"{row.technique} failed on {row.model}")
        report = Report.model_validate_json((folder / "made" / "report.json").read_bytes())
        peer = row.measure_peer(peers.Subject(folder, model, data, row.step, row.metric, train, student))
    return _evidence(row, report, peer)


def _evidence(row: Row, report: Report, peer: peers.Figures) -> Evidence:
    before, after = report.metrics.original, report.metrics.compressed
    cosine = after.fidelity.cosine if after.fidelity else None
    return Evidence(
        technique=row.technique,
        format=report.original.format,
        model=row.model,
        data=row.data,
        bytes_original=before.size_bytes,
        bytes_artifact=after.size_bytes,
        metric=row.metric,
        original=1.0 if row.metric == "fidelity" else getattr(before, row.metric),
        compressed=cosine if row.metric == "fidelity" else getattr(after, row.metric),
        fidelity_cosine=cosine,
        peer=row.peer,
        peer_bytes=peer.size_bytes,
        peer_value=peer.value,
        peer_cosine=peer.cosine,
        command=f'make evidence ONLY="{row.technique}"',
    )


def to_markdown(rows: tuple[Evidence, ...]) -> str:
    """The table that people read."""
    columns = (
        "technique", "model", "data", "bytes", "ratio", "metric", "original", "compressed", "cosine", "peer",
        "its bytes", "its value", "its cosine",
    )  # fmt: skip
    lines = [
        "# Evidence",
        "",
        "One row per technique and model, written by `make evidence`. Bytes are those of the stored files; quality is",
        "measured on the artifact re-opened in a fresh process, on rows that were used for nothing else.",
        "",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in columns)} |",
    ]
    lines += [_markdown_row(row) for row in rows]
    return "\n".join((*lines, ""))


def _markdown_row(row: Evidence) -> str:
    cells = (
        f"`{row.technique}`",
        row.model,
        row.data,
        f"{row.bytes_original:,} → {row.bytes_artifact:,}",
        f"{row.bytes_original / row.bytes_artifact:.2f}×",
        row.metric,
        _number(row.original),
        f"{row.compressed:.4f}",
        _number(row.fidelity_cosine),
        row.peer,
        f"{row.peer_bytes:,}" if row.peer_bytes else "",
        _number(row.peer_value),
        _number(row.peer_cosine),
    )
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def write(known: dict[tuple[str, str], Evidence]) -> tuple[Evidence, ...]:
    """Writes both files from the rows there are, in the order of ``ROWS``."""
    ordered = tuple(known[row.technique, row.model] for row in ROWS if (row.technique, row.model) in known)
    JSON.write_bytes(TypeAdapter(tuple[Evidence, ...]).dump_json(ordered, indent=2, exclude_none=True) + b"\n")
    MARKDOWN.write_text(to_markdown(ordered), "utf-8")
    return ordered


def main() -> int:
    """Measures the chosen rows, keeps the others as they are, and writes both files after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="part of a technique's or a model's name")
    wanted = parser.parse_args().only
    known = {(row.technique, row.model): row for row in load_evidence()}
    for row in ROWS:
        if wanted in f"{row.technique} {row.model}":
            known[row.technique, row.model] = measure(row)
            write(known)
    missing = sorted(set(STEPS_BY_KEY) - {row.technique for row in write(known)})
    if missing:
        sys.stderr.write(f"no evidence for: {', '.join(missing)}\n")
    return 1 if missing and not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
