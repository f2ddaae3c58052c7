"""Pruning by scores, at once or on a schedule: what the methods have in common that can do both."""

from collections.abc import Callable, Sequence

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import CompressibleModel, Weight
from workers.compression.pruning.apply import prune_weights
from workers.compression.pruning.criteria import ScoringJudge
from workers.compression.specs.steps.prune_weights import ScheduledPrune

Judging = Callable[[CompressibleModel, Context], ScoringJudge]
"""How a method judges weights of a model as it is now."""


def prune_judged(
    model: CompressibleModel, weights: Sequence[Weight], spec: ScheduledPrune, judging: Judging, context: Context
) -> Model:
    """Zeroes weights in place, while the model trains if the step says so."""
    if spec.schedule is None:
        return prune_weights(model, weights, spec, judging(model, context), context)
    # Only schedules train, and so need torch.
    from workers.compression.techniques.prune.scheduled import prune_on_schedule  # noqa: PLC0415

    return prune_on_schedule(model, weights, spec, spec.schedule, judging, context)
