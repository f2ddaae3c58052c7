"""``python -m workers.compression``: the child's side of the protocol, or the engine alone on files.

Without arguments it is the sandboxed child: it reads ``request.json`` in its working directory, writes events as JSON
lines to its standard output and leaves ``result.json``. With ``run`` it takes a model and a recipe and does the whole
job itself (see ``workers.compression.alone``).
"""

import json
import os
import sys
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from workers.compression.alone import main as run_alone
from workers.compression.archive.commands import main_pack, main_unpack
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.expand import main as expand
from workers.compression.specs.errors import Code, EngineError, OutOfDisk, OutOfMemory
from workers.compression.specs.messages import (
    MAX_EVENT_BYTES,
    REQUEST_FILE,
    RESULT_FILE,
    Event,
    Failure,
    Outcome,
    Request,
)

MEMORY_WORDS = ("can't allocate memory", "out of memory", "bad_alloc", "failed to allocate", "cannot allocate memory")


def main() -> int:
    """Runs one request; the exit code is 0 whenever there is a result file, failures included."""
    events = _take_standard_output()

    def emit(event: Event) -> None:
        line = event.model_dump_json().encode()
        if len(line) < MAX_EVENT_BYTES:
            os.write(events, line + b"\n")

    # Techniques leave files below out/ in it too, not only what is saved at the end.
    context = Context(scratch=Path.cwd(), emit=emit)
    outcome = _outcome(context)
    Path(RESULT_FILE).write_text(outcome.model_dump_json(exclude_none=True), "utf-8")
    return 0


def _take_standard_output() -> int:
    """Keeps the real standard output for events and sends what libraries print to standard error."""
    events = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


def _outcome(context: Context) -> Outcome:
    try:
        request: Request = TypeAdapter(Request).validate_json(Path(REQUEST_FILE).read_bytes())
        return Outcome(result=perform(request, Path.cwd(), context))
    except EngineError as error:
        return Outcome(failure=_failure(error, context))
    except MemoryError:
        return Outcome(failure=_failure(_out_of_memory(), context))
    except ValidationError as error:
        detail = "The result holds a value that its contract does not allow: " + _first_error(error)
        return Outcome(failure=Failure(code=Code.INVALID_RESULT, detail=detail[:4000], step=context.step or None))
    except OSError as error:
        if error.errno in {27, 28}:
            return Outcome(failure=_failure(OutOfDisk("A file grew over the limit of the sandbox."), context))
        raise
    except RuntimeError as error:
        if any(word in str(error).lower() for word in MEMORY_WORDS):
            return Outcome(failure=_failure(_out_of_memory(), context))
        raise


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory("The memory limit of the sandbox was reached.", hint="Use a smaller batch or a larger worker.")


def _failure(error: EngineError, context: Context) -> Failure:
    return Failure(
        code=error.code,
        detail=error.detail[:4000],
        reason=error.reason,
        hint=error.hint,
        step=error.step or context.step or None,
        retryable=error.retryable,
    )


def _first_error(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[0]
    return f"{'/'.join(str(part) for part in found['loc'])}: {json.dumps(found['msg'])}"


if __name__ == "__main__":
    commands = {"run": run_alone, "expand": expand, "pack": main_pack, "unpack": main_unpack}
    command = commands.get(next(iter(sys.argv[1:]), ""))
    sys.exit(command(sys.argv[2:]) if command is not None else main())
