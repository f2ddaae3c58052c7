"""Finds how much of each part of a model can be pruned within ``max_drop``, and confirms it on rows of its own.

The rule: the drop as measured on the selection rows has to be within ``max_drop``. Of many sparsities tried the one is
taken that these rows happen to like, so their figure is optimistic; rows that had no part in the choice then show the
drop as it is. Where that is more than ``max_drop``, the selection rows are held to a limit lower by the excess, and the
milder choice is confirmed again, a few times at most; the report says how often the confirmation rows were looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.sensitivity.yardstick import Yardstick
from workers.compression.specs.errors import ConstraintInfeasible, DatasetMismatch
from workers.compression.specs.metrics import FoundSparsity, JudgedDrop
from workers.compression.tolerance.allotting import Allotment
from workers.compression.tolerance.drops import JudgingRows
from workers.compression.tolerance.prunable import Prunable
from workers.compression.tolerance.search import Search, Trial, measure_curves

CURVE_ROWS = 64
_LOOKS = 4
_MORE_STAY = 1.25


@dataclass(frozen=True)
class Found:
    """The share of each part, by its name, and what the report says of them."""

    shares: Mapping[str, float]
    outcome: FoundSparsity


def find_shares(model: Model, prunable: Prunable, max_drop: float, context: Context) -> Found:
    """Finds the largest total within ``max_drop``, notes it in the context and says what was found.

    Args:
        model: Gives inputs and tokenizer; as it was before afterwards.
        prunable: Its parts.

    Raises:
        ConstraintInfeasible: Not even the mildest pruning keeps within ``max_drop``; the detail says what it does.
        DatasetMismatch: There are no rows to select or confirm by, or the metric is not defined on them.
    """
    model.threads(context.threads)
    try:
        found = _Finder(model, prunable, max_drop, context).find()
    finally:
        model.threads(context.target.threads)
    context.found = found.outcome
    context.changed(_sentence(found.outcome))
    return found


class _Finder:
    """One search: the curves, the two sets of rows, and what was seen on them."""

    def __init__(self, model: Model, prunable: Prunable, max_drop: float, context: Context) -> None:
        self._prunable = prunable
        self._max_drop = max_drop
        self._context = context
        selection, confirmation = _given(context.selection), _given(context.confirmation)
        metric, rows = context.evaluation.metric, context.evaluation.max_samples
        with prunable.pruned({}) as run:
            self._selection = JudgingRows(model, run, selection.limited(rows), metric)
            self._confirmation = JudgingRows(model, run, confirmation.limited(rows), metric)
            yardstick = Yardstick(run, model.inputs, model.tokenizer_file(), selection, CURVE_ROWS)
        self._warn_of_few_rows()
        self._search = Search(
            prunable, Allotment(measure_curves(prunable, yardstick, context)), self._selection, context
        )

    def find(self) -> Found:
        """The largest total, backed off from until it is confirmed, for ``_LOOKS`` times at most."""
        trial = self._search.largest(self._max_drop)
        if trial is None:
            raise self._infeasible()
        confirmed, looks = self._confirm(trial), 1
        while confirmed.drop > self._max_drop and looks < _LOOKS:
            trial = self._milder(trial, trial.drop.value - (confirmed.drop - self._max_drop))
            confirmed, looks = self._confirm(trial), looks + 1
        found = Found(trial.shares, self._outcome(trial, confirmed, looks))
        if not found.outcome.confirmed:
            self._context.warn(_unconfirmed(found.outcome))
        return found

    def _milder(self, trial: Trial, limit: float) -> Trial:
        """The largest total within a lower limit; where the rows cannot tell, a quarter more weights stay."""
        self._context.log(f"the selection rows are held to a drop of {limit:.4f} instead")
        found = self._search.largest(limit, trial.total) if limit > 0.0 else None
        return found or self._search.tried(max(0.0, 1.0 - _MORE_STAY * (1.0 - trial.total)))

    def _confirm(self, trial: Trial) -> JudgedDrop:
        with self._prunable.pruned(trial.shares) as run:
            judged = self._confirmation.judged(run, self._context.random())
        self._context.log(
            f"{trial.total:.2%} zeros: {self._confirmation.metric} {judged.compressed:.4f} on the confirmation rows, "
            f"a drop of {judged.drop:.4f}"
        )
        return judged

    def _outcome(self, trial: Trial, confirmed: JudgedDrop, looks: int) -> FoundSparsity:
        with self._prunable.pruned(trial.shares) as run:
            selected = self._selection.judged(run, self._context.random())
        return FoundSparsity(
            max_drop=self._max_drop,
            metric=self._selection.metric,
            sparsity=self._prunable.total(trial.shares),
            selection=selected,
            confirmation=confirmed,
            confirmations=looks,
            evaluations=self._search.count,
            capped=self._search.is_most(trial),
            confirmed=confirmed.drop <= self._max_drop,
        )

    def _infeasible(self) -> ConstraintInfeasible:
        mildest = self._search.mildest
        return ConstraintInfeasible(
            f"Even with {mildest.total:.1%} zeros {self._selection.metric} drops by {mildest.drop.value:.4g}, from "
            f"{mildest.drop.before:.4g} to {mildest.drop.after:.4g} on {self._selection.count} selection rows; at most "
            f"{self._max_drop:g} is tolerated.",
            reason="max_drop",
            hint="Tolerate a larger max_drop, exclude the most sensitive layers, or train after pruning to a sparsity.",
        )

    def _warn_of_few_rows(self) -> None:
        fewest = min(self._selection.count, self._confirmation.count)
        if self._selection.metric == "accuracy" and fewest * self._max_drop < 1.0:
            self._context.warn(
                f"On {fewest} rows one answer more or less is {1 / fewest:.2%} of accuracy: too coarse to tell a drop "
                f"of {self._max_drop:g}. More rows make the found sparsity surer."
            )


def _given(dataset: Dataset | None) -> Dataset:
    if dataset is None:
        raise DatasetMismatch("max_drop needs rows to select and to confirm by.", reason="selection_needed")
    return dataset


def _sentence(found: FoundSparsity) -> str:
    capped = ", the most that is tried" if found.capped else ""
    return (
        f"sparsity {found.sparsity:.2%} found for a drop of {found.metric} of at most {found.max_drop:g}{capped}: it "
        f"drops by {found.selection.drop:.4f} on {found.selection.rows} selection rows and by "
        f"{found.confirmation.drop:.4f} on {found.confirmation.rows} confirmation rows"
    )


def _unconfirmed(found: FoundSparsity) -> str:
    interval = found.confirmation.interval
    likely = f" (95 %: {interval.low:.4f} to {interval.high:.4f})" if interval is not None else ""
    return (
        f"The sparsity was selected at a drop of {found.selection.drop:.4f}, but the confirmation rows show "
        f"{found.confirmation.drop:.4f}{likely}, above max_drop {found.max_drop:g}. More selection rows make such "
        "a choice surer."
    )
