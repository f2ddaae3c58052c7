"""How much worse a variant of a model answers than the model itself: what ``max_drop`` is compared with.

A drop is in absolute points for metrics bounded by 0 and 1, and relative to the model's own figure for the others.
Where there are no labels, or fidelity is asked for, the model's own answers are the standard: its figure is 1, that of
a variant the mean cosine of its outputs to them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workers.compression import scores
from workers.compression.data import Batch, Dataset
from workers.compression.families.model import Array, Model
from workers.compression.sensitivity.yardstick import KEPT_BYTES, WORST, Run
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task
from workers.compression.specs.metrics import HIGHER_IS_BETTER, Interval, JudgedDrop
from workers.compression.task_scores import DEFAULT_METRICS, Floats, comparable, metric_value, predictions

FIDELITY = "fidelity"
_ABSOLUTE = frozenset({"accuracy", "f1", "auc", FIDELITY})
_BATCH_ROWS = 64
_RESAMPLES = 500

Rows = npt.NDArray[np.int64]


def drop_between(metric: str, before: float, after: float) -> float:
    """How much worse ``after`` is than ``before``; negative if it is better, ``WORST`` if it is no number."""
    if not np.isfinite(after):
        return WORST
    worse = before - after if metric in HIGHER_IS_BETTER or metric == FIDELITY else after - before
    if metric in _ABSOLUTE or not worse:
        return worse
    return float(np.clip(worse / abs(before), -WORST, WORST)) if before else float(np.sign(worse)) * WORST


@dataclass(frozen=True)
class Drop:
    """A variant on the rows: the metric before and after, and how much worse that is."""

    before: float
    after: float
    value: float


class JudgingRows:
    """Rows, and what the unchanged model makes of them, kept to judge many variants by.

    Args:
        model: Gives inputs and tokenizer.
        run: The unchanged model.
        dataset: The rows; no more of them are kept than fit into memory.
        metric: What they are judged by; the task's own by default.

    Raises:
        DatasetMismatch: There are no rows, they do not fit the model, or the metric is not defined on them.
    """

    def __init__(self, model: Model, run: Run, dataset: Dataset, metric: str | None = None) -> None:
        self.metric = metric or DEFAULT_METRICS[dataset.task]
        self._labelled = self.metric != FIDELITY and dataset.task is not Task.FIDELITY
        if self.metric != FIDELITY and not self._labelled:
            raise DatasetMismatch(f"The rows have no labels to compute {self.metric} from.", reason="labels_needed")
        self._dataset = dataset
        self._batches: list[Batch] = []
        self._kept: list[list[Array]] = []
        room = KEPT_BYTES
        for batch in dataset.batches(model.inputs, _BATCH_ROWS, model.tokenizer_file()):
            self._batches.append(batch)
            self._kept.append(self._taken(run(batch.feeds), batch))
            room -= sum(values.nbytes for values in (*batch.feeds.values(), *self._kept[-1]))
            if room <= 0:
                break
        if not self._batches:
            raise DatasetMismatch("There are no rows to judge pruned models by, or too few for the model's batches.")
        self._truth = self._targets()
        self._original = self._answers(self._kept)
        self.before = self._value(self._original)
        if not np.isfinite(self.before):
            raise DatasetMismatch(
                f"The model's {self.metric} is not defined on the {self.count} rows it would be judged by.",
                reason="metric_undefined",
                hint="Give more rows, with more than one class or value among them, or choose another metric.",
            )

    @property
    def count(self) -> int:
        """How many rows are kept."""
        return sum(map(len, self._batches))

    def drop(self, run: Run) -> Drop:
        """How much worse ``run`` answers."""
        after = self._value(self._made_by(run))
        return Drop(self.before, after, drop_between(self.metric, self.before, after))

    def judged(self, run: Run, random: np.random.Generator) -> JudgedDrop:
        """The same with its interval."""
        answers = self._made_by(run)
        after = self._value(answers)
        return JudgedDrop(
            rows=self.count,
            original=self.before,
            compressed=after if np.isfinite(after) else -WORST,
            drop=drop_between(self.metric, self.before, after),
            interval=self._interval(answers, random),
        )

    def _interval(self, answers: Floats, random: np.random.Generator) -> Interval | None:
        """Bootstrap over rows, both models on the same ones each time; None where that leaves the metric undefined."""
        count, drops = len(answers), []
        for _ in range(_RESAMPLES):
            rows = random.integers(0, count, count)
            before, after = self._value(self._original, rows), self._value(answers, rows)
            if np.isfinite(before) and np.isfinite(after):
                drops.append(drop_between(self.metric, before, after))
        if len(drops) < _RESAMPLES // 2:
            return None
        low, high = np.percentile(drops, (2.5, 97.5))
        return Interval(n=self.count, low=float(low), high=float(high))

    def _made_by(self, run: Run) -> Floats:
        made = (self._taken(run(batch.feeds), batch) for batch in self._batches)
        return self._answers(list(made))

    def _taken(self, outputs: list[Array], batch: Batch) -> list[Array]:
        if self._labelled:
            return [predictions(outputs, batch, self._dataset)]
        return comparable(outputs, batch, self._dataset)

    def _targets(self) -> Array:
        """The labels of the rows.

        Raises:
            DatasetMismatch: The outputs do not fit them.
        """
        if not self._labelled:
            return np.empty(0)
        truth = np.concatenate([np.asarray(batch.targets) for batch in self._batches])
        width = self._kept[0][0].shape[1]
        if self._dataset.task is Task.CLASSIFICATION:
            fits = int(truth.max(initial=0)) < width and (self.metric != "auc" or width == 2)
        else:
            fits = truth.reshape(len(truth), -1).shape[1] == width
        if not fits:
            raise DatasetMismatch(
                f"{self.metric} cannot be computed from {width} values per row and these labels.",
                reason="metric_undefined",
            )
        return truth

    def _answers(self, made: list[list[Array]]) -> Floats:
        """One row per sample: predictions, or the cosine of each output to the original's."""
        if self._labelled:
            return np.concatenate([np.asarray(outputs[0], np.float64) for outputs in made])
        cosines = [
            np.stack([_cosines(left, right) for left, right in zip(kept, outputs, strict=True)], axis=1)
            for kept, outputs in zip(self._kept, made, strict=True)
        ]
        return np.concatenate(cosines)

    def _value(self, answers: Floats, rows: Rows | None = None) -> float:
        chosen = answers if rows is None else answers[rows]
        if not np.isfinite(chosen).all():
            return float("nan")
        if not self._labelled:
            return float(chosen.mean(axis=0).min())
        return metric_value(self.metric, self._truth if rows is None else self._truth[rows], chosen)


def _cosines(left: Array, right: Array) -> Floats:
    """By row; where the original gives no number there is nothing to be faithful to."""
    first, second = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (left, right))
    known = np.isfinite(first)
    return scores.row_cosines(np.where(known, first, 0.0), np.where(known, second, 0.0))
