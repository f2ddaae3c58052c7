"""Runs original and compressed over the same rows: fidelity of the outputs and, with labels, task metrics."""

from dataclasses import dataclass, field

import numpy as np

from workers.compression import scores
from workers.compression.data import Batch, Dataset
from workers.compression.families.model import Array, Model
from workers.compression.pairing import Batches, Pair
from workers.compression.specs.errors import DatasetMismatch, InvalidResult, NumericalFailure
from workers.compression.specs.formats import Task
from workers.compression.specs.metrics import Fidelity
from workers.compression.task_scores import Answers, Scored, comparable

BATCH_ROWS = 16


@dataclass(frozen=True)
class Judgement:
    """What a pass over the evaluation rows showed; ``findings`` say in words why a figure is missing."""

    rows: int
    fidelity: Fidelity | None
    original: Scored
    compressed: Scored
    findings: tuple[str, ...] = ()


def judge(
    original: Model,
    compressed: Model,
    dataset: Dataset,
    random: np.random.Generator,
    *,
    outputs_may_change: bool = False,
) -> Judgement:
    """One pass of both models over ``dataset``.

    Args:
        original: What the figures are compared with.
        compressed: May take other inputs, tokens and batch sizes than the original.
        dataset: The rows, with or without labels.
        random: Feeds the intervals.
        outputs_may_change: Whether the compressed model may answer something else than the original, such as new
            labels; the original then need not be able to answer them.

    Raises:
        NumericalFailure: The compressed model gives NaN or infinity where the original gave numbers.
        DatasetMismatch: The outputs hold nothing that the labels could be compared with.
        InvalidResult: The outputs have other shapes although nothing was to change them.
    """
    compared = ComparedOutputs(dataset)
    answers = (Answers(dataset, required=not outputs_may_change), Answers(dataset, required=True))
    rows = 0
    for batches in Pair(original, compressed).batches(dataset, BATCH_ROWS):
        sides = (_Made.by(original, batches.original), _Made.by(compressed, batches.compressed))
        compared.add(*(side.comparable(dataset) for side in sides))
        for taken, side in zip(answers, sides, strict=True):
            for outputs, batch in zip(side.outputs, side.batches, strict=True):
                taken.add(outputs, batch)
        rows += sum(len(batch) for batch in batches.original)
    if not rows:
        raise DatasetMismatch(
            "The evaluation data has no rows, or too few for the models' batch sizes.", step="measure"
        )
    compared.require_numbers()
    if not outputs_may_change:
        compared.require_same_shapes()
    seed = int(random.integers(1 << 31))
    first, second = (taken.score(np.random.default_rng(seed)) for taken in answers)
    if _answer_other_classes(*answers):
        first = Scored()
    findings = (*compared.findings(), *_answer_findings(*answers))
    return Judgement(rows, compared.fidelity(), first, second, findings)


def output_fidelity(
    original: list[list[Array]],
    original_batches: list[Batch],
    compressed: Model,
    compressed_batches: list[Batch],
    dataset: Dataset,
) -> Fidelity | None:
    """Fidelity of ``compressed`` to outputs of the original that were kept, batch by batch of the same rows.

    Raises:
        NumericalFailure: The compressed model gives NaN or infinity where the original gave numbers.
    """
    compared = ComparedOutputs(dataset)
    for kept, before, after in zip(original, original_batches, compressed_batches, strict=True):
        compared.add(comparable(kept, before, dataset), comparable(compressed.run(after.feeds), after, dataset))
    compared.require_numbers()
    return compared.fidelity()


@dataclass(frozen=True)
class _Made:
    """Some rows' batches and what a model made of each."""

    batches: Batches
    outputs: list[list[Array]]

    @classmethod
    def by(cls, model: Model, batches: Batches) -> "_Made":
        return cls(batches, [model.run(batch.feeds) for batch in batches])

    def comparable(self, dataset: Dataset) -> list[Array]:
        """The comparable outputs of all the rows together."""
        parts = [comparable(made, batch, dataset) for made, batch in zip(self.outputs, self.batches, strict=True)]
        return parts[0] if len(parts) == 1 else [np.concatenate(same) for same in zip(*parts, strict=True)]


@dataclass
class ComparedOutputs:
    """Outputs of both models in pairs: the first with the first and so on, as far as both have them.

    A pair whose shapes differ in any batch has no fidelity; that both give numbers is looked at all the same.
    """

    dataset: Dataset
    _sums: list[scores.FidelitySums] = field(default_factory=list)
    _unlike: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    _outputs: int = 0
    _finite: bool = True

    def add(self, original: list[Array], compressed: list[Array]) -> None:
        """Takes the comparable outputs of both for the same rows."""
        self._outputs = max(len(original), len(compressed))
        self._sums = self._sums or [scores.FidelitySums() for _ in zip(original, compressed, strict=False)]
        for index, (left, right) in enumerate(zip(original, compressed, strict=False)):
            if left.shape == right.shape:
                self._sums[index].add(left, right, classes=_holds_classes(left, self.dataset))
            else:
                self._unlike.setdefault(index, (left.shape[1:], right.shape[1:]))
                self._require_finite(right)
        for alone in compressed[len(original) :]:
            self._require_finite(alone)

    def fidelity(self) -> Fidelity | None:
        """The worst over the pairs; None where the first outputs cannot be compared."""
        kept = [total for index, total in enumerate(self._sums) if index not in self._unlike]
        return scores.worst([total.result() for total in kept]) if kept and 0 not in self._unlike else None

    def findings(self) -> list[str]:
        """Why there is no fidelity, or not of all outputs."""
        if 0 in self._unlike:
            before, after = self._unlike[0]
            if len(before) == len(after) == 1 and self.dataset.task is Task.CLASSIFICATION:
                return ["The artifact answers other classes than the original: fidelity does not apply."]
            shapes = f"The artifact gives {list(after)} per row where the original gives {list(before)}"
            return [f"{shapes}: fidelity does not apply."]
        if not self._sums:
            return ["There are no outputs of both models to compare: fidelity does not apply."]
        kept = len(self._sums) - len(self._unlike)
        if kept == self._outputs:
            return []
        return [f"Fidelity is that of {kept} of {self._outputs} outputs; the others have no like on the other side."]

    def require_numbers(self) -> None:
        """Raises ``NumericalFailure`` if the compressed model gave NaN or infinity where the original did not."""
        if not self._finite or not all(total.finite for total in self._sums):
            raise NumericalFailure(
                "The compressed model's outputs contain NaN or infinity.",
                reason="output_not_finite",
                hint="Exclude the layers with the widest value range, or choose a wider type.",
            )

    def require_same_shapes(self) -> None:
        """Raises ``InvalidResult`` if the outputs do not pair up shape by shape."""
        for finding in self.findings():
            raise InvalidResult(f"The recipe was to leave the outputs' shapes alone. {finding}", step="measure")

    def _require_finite(self, output: Array) -> None:
        if np.issubdtype(output.dtype, np.floating):
            self._finite = self._finite and bool(np.isfinite(output).all())


def _answer_findings(original: Answers, compressed: Answers) -> list[str]:
    if original.refusal is not None:
        return [
            f"Only the artifact's quality is measured, for the original cannot be scored: {original.refusal.detail}"
        ]
    if not _answer_other_classes(original, compressed):
        return []
    told = f"it tells {compressed.width} classes apart, not {original.width}"
    return [f"Only the artifact's quality is measured: {told}."]


def _answer_other_classes(original: Answers, compressed: Answers) -> bool:
    """Whether the two tell different numbers of classes apart, so that the labels are those of one of them only."""
    widths = (original.width, compressed.width)
    return original.dataset.task is Task.CLASSIFICATION and None not in widths and widths[0] != widths[1]


def _holds_classes(output: Array, dataset: Dataset) -> bool:
    """Whether the last axis can be class scores; a vector that stands for a text has no top class."""
    return output.ndim >= 2 and output.shape[-1] > 1 and dataset.task in (Task.CLASSIFICATION, Task.FIDELITY)
