"""Chooses how ranges of activations are estimated by what the quantized models do on selection rows.

No estimator is best everywhere: the extremes stay closest to a model whose outliers carry meaning, cut ranges give all
else finer steps. Rows with labels tell which of that serves the task; rows without tell which stays closest.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.tolerance.drops import JudgingRows

CANDIDATES: tuple[Literal["minmax", "percentile", "mse"], ...] = ("minmax", "percentile", "mse")
"""The extremes, without the outermost, and with the least squared error; of equals the first is taken."""


@dataclass(frozen=True)
class _Trial:
    """A model quantized with one estimator, what its making reported, and how much worse it answers."""

    range: str
    model: Model
    context: Context
    drop: float
    value: float


def with_best_range(
    model: Model, spec: StaticQuantize, context: Context, quantized: Callable[[StaticQuantize, Context], Model]
) -> Model:
    """The quantized model that loses least on the selection rows by the job's metric.

    Args:
        model: The unquantized one; ``quantized`` leaves it as it is.
        quantized: Makes a model anew.

    Raises:
        DatasetMismatch: There are no rows to choose by, or the metric is not defined on them.
        UnsupportedTechnique: No estimator gives a model within the budget.
    """
    rows = _judging(model, context, confirming=False)
    trials, refused = [], UnsupportedTechnique("No range was tried.")
    for name, window in zip(CANDIDATES, context.windows(len(CANDIDATES)), strict=True):
        own = replace(context, window=window, changes=[], warnings=[])
        try:
            made = quantized(spec.model_copy(update={"range": name}), own)
        except UnsupportedTechnique as error:
            refused = error
            continue
        drop = rows.drop(made.run)
        context.log(f"range {name}: {rows.metric} {drop.after:.4f} on {rows.count} selection rows")
        trials.append(_Trial(name, made, own, drop.value, drop.after))
    if not trials:
        raise refused
    best = min(trials, key=lambda trial: trial.drop)
    context.warnings.extend(best.context.warnings)
    for sentence in (*best.context.changes, _sentence(best, rows, _judging(model, context, confirming=True))):
        context.changed(sentence)
    return best.model


def _judging(model: Model, context: Context, *, confirming: bool) -> JudgingRows:
    dataset = context.confirmation if confirming else context.selection
    if dataset is None:
        raise DatasetMismatch("range auto needs rows to choose and to confirm by.", reason="selection_needed")
    evaluation = context.evaluation
    return JudgingRows(model, model.run, dataset.limited(evaluation.max_samples), evaluation.metric)


def _sentence(best: _Trial, selection: JudgingRows, confirmation: JudgingRows) -> str:
    confirmed = confirmation.drop(best.model.run)
    return (
        f"range {best.range} chosen: {selection.metric} {best.value:.4f} on {selection.count} selection rows "
        f"({selection.before:.4f} before), {confirmed.after:.4f} on {confirmation.count} others "
        f"({confirmed.before:.4f} before)"
    )
