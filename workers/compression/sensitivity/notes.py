"""What was measured before an attempt was cut off, so that the next one goes on with the weight it had reached."""

import time
from pathlib import Path

from pydantic import ValidationError

from workers.compression.context import Context
from workers.compression.specs.messages import OUTPUT_FOLDER
from workers.compression.specs.sensitivity import Measurement, SensitivityMap

_FOLDER = "sensitivities"


class Notes:
    """Writes checkpoints of a map that grows, and reads the one of the attempt before.

    Args:
        context: Of the step that measures.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._started = self._written = time.monotonic()

    def known(self, measured: Measurement) -> SensitivityMap | None:
        """What the attempt before had measured of the same."""
        checkpoint = self._context.checkpoints.get(self._context.step)
        if checkpoint is None:
            return None
        try:
            found = SensitivityMap.model_validate_json(Path(checkpoint.path).read_bytes())
        except (ValidationError, ValueError):
            self._context.warn("What an earlier attempt measured cannot be read; it is measured again.")
            return None
        return found if found.measured == measured else None

    def note(self, made: SensitivityMap, *, finished: bool) -> None:
        """Writes a checkpoint if the last one is long ago; the last one of all only where measuring took long."""
        now, seconds = time.monotonic(), self._context.checkpoint_seconds
        if now - (self._started if finished else self._written) < seconds:
            return
        self._written = now
        folder = self._context.scratch / OUTPUT_FOLDER / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        update = sum(len(weight.options) for weight in made.weights)
        name = f"{self._context.step.replace('/', '-')}-{update}{'-end' if finished else ''}.json"
        unfinished = folder / f".{name}"
        unfinished.write_text(made.model_dump_json(), "utf-8")
        unfinished.rename(folder / name)
        self._context.checkpoint(f"{OUTPUT_FOLDER}/{_FOLDER}/{name}", update, finished=finished)
