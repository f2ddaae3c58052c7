"""What a technique may use besides the model and its spec."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.sensitivity.known import KnownSensitivities
from workers.compression.specs.job import Evaluation, Target
from workers.compression.specs.messages import (
    Checkpoint,
    CheckpointWritten,
    Event,
    ExtraFile,
    Log,
    MetricReported,
    Progress,
)
from workers.compression.specs.metrics import Curve, FoundSparsity


def _ignore(event: Event) -> None:
    """The default sink, for use of the engine as a library."""


@dataclass
class Context:
    """Seed, data, target and the way out for events; one per task of a child.

    Args:
        scratch: A folder the technique may fill.
        seed: Feeds every random choice; same seed, same bytes.
        emit: Takes events; the child writes them to its standard output.
        threads: How many threads heavy computing may use; figures of speed go by ``target.threads`` instead.
        selection: Rows that a search chooses by; they serve nothing else.
        confirmation: Rows that show whether the choice holds; they serve nothing else either.
        found: What a search of the current step has found, for the report.
        open_original: Opens the job's original model anew.
        open_student: Opens a model that a step names by its id.
        checkpoints: The latest checkpoint of each step of an attempt that was cut off, by step.
        checkpoint_seconds: Time between two checkpoints of one step.
        identity: Of the model and the recipe, so that no checkpoint of others is taken.
        compressed: Whether an earlier step compressed, so that a later one has to keep what it made.
        sensitivities: What is known of the original's.
    """

    scratch: Path
    seed: int = 0
    target: Target = field(default_factory=Target)
    evaluation: Evaluation = field(default_factory=Evaluation)
    train: Dataset | None = None
    calibration: Dataset | None = None
    evaluation_data: Dataset | None = None
    selection: Dataset | None = None
    confirmation: Dataset | None = None
    emit: Callable[[Event], None] = _ignore
    threads: int = 1
    open_original: Callable[[], Model] | None = None
    open_student: Callable[[str], Model] | None = None
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    checkpoint_seconds: float = 30.0
    identity: str = ""
    compressed: bool = False
    step: str = ""
    window: tuple[float, float] = (0.0, 1.0)
    warnings: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    found: FoundSparsity | None = None
    extras: list[ExtraFile] = field(default_factory=list)
    sensitivities: KnownSensitivities = field(default_factory=KnownSensitivities)
    _last_progress: float = 0.0

    def random(self) -> np.random.Generator:
        """A fresh generator from the job's seed: a technique's result depends on nothing before it."""
        return np.random.default_rng(self.seed)

    def any_data(self) -> Dataset | None:
        """The rows to calibrate on: ``calibration``, else ``train``. Never the evaluation rows."""
        return self.calibration or self.train

    def progress(self, fraction: float, message: str = "") -> None:
        """Reports how far the current step is (0..1); at most about two a second go out."""
        now = time.monotonic()
        if now - self._last_progress < 0.5 and fraction < 1.0:
            return
        self._last_progress = now
        low, high = self.window
        whole = low + (high - low) * min(max(fraction, 0.0), 1.0)
        self.emit(Progress(fraction=whole, step=self.step, message=message[:1000]))

    def log(self, message: str) -> None:
        """A line for the job's log."""
        self.emit(Log(message=message[:3000]))

    def warn(self, message: str) -> None:
        """Something the user should know; ends up in the job's ``warnings``."""
        self.warnings.append(message[:2000])
        self.emit(Log(level="warning", message=message[:3000]))

    def changed(self, sentence: str) -> None:
        """What the current step did, for the report: "quantized 37 of 38 MatMul layers, …"."""
        self.changes.append(sentence[:500])
        self.log(sentence)

    def metric(self, name: str, value: float, step: int = 0) -> None:
        """A figure on the way, such as a loss."""
        self.emit(MetricReported(name=name, value=value, step=step))

    def checkpoint(self, path: str, update: int, *, finished: bool) -> None:
        """Hands over a file below ``out/`` from which the current step can go on; it must not change any more."""
        made = Checkpoint(step=self.step, path=path, update=update, finished=finished)
        self.emit(CheckpointWritten(checkpoint=made))

    def windows(self, count: int) -> tuple[tuple[float, float], ...]:
        """The current window of the progress bar cut into ``count`` equal ones."""
        low, high = self.window
        width = (high - low) / count
        return tuple((low + width * index, low + width * (index + 1)) for index in range(count))
