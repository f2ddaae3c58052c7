"""Prunes the weights of a model: the one way that all methods go, whatever they judge weights by."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from workers.compression.context import Context
from workers.compression.families.weights import CompressibleModel, Floats, Weight, finite_matrix, selected
from workers.compression.pruning import allocation
from workers.compression.pruning.criteria import ByScore, Criterion, Judge
from workers.compression.pruning.masks import Mask, pooled_masks
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.pruning_pattern import Blocks, Pattern, parse
from workers.compression.specs.steps.prune_weights import WeightPrune
from workers.compression.tolerance.finding import find_shares
from workers.compression.tolerance.prunable import PrunableWeights

Criteria = Mapping[str, Criterion]
"""By the weight's name."""

_WHY_NOT = "what enters the layer cannot be watched, or is zero or not finite on the calibration rows"


def prunable_weights(model: CompressibleModel, spec: WeightPrune, *, tables: bool = True) -> list[Weight]:
    """The weights that a step is about; from here on the model is saved as the step says.

    Args:
        tables: Whether embedding tables are among them although the step does not name them. A row of a table answers
            for one token, so a method that knows a layer's inputs has nothing to say about it, and rows that the
            calibration data never looks up would seem worthless to one that goes by gradients.

    Raises:
        UnsupportedTechnique: None is selected.
        NumericalFailure: One holds NaN or infinity.
    """
    model.fill_in_zeros()
    candidates, chosen = selected(model, spec.include, spec.exclude, smallest=1)
    weights = [weight for weight in chosen if tables or spec.include or weight.role != "embedding"]
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float weight matrices is selected for pruning.",
            hint="Check include and exclude.",
        )
    if spec.storage == "sparse":
        model.leave_out_zeros()
    for weight in weights:
        finite_matrix(model, weight)
    return weights


def prune_weights(
    model: CompressibleModel, weights: Sequence[Weight], spec: WeightPrune, judge: Judge, context: Context
) -> CompressibleModel:
    """Prunes ``weights`` in place as far as the step says, or as far as its ``max_drop`` lets it.

    Raises:
        UnsupportedTechnique: The method can judge none of them.
        ConstraintInfeasible: As ``find_shares``.
    """
    pattern = parse(spec.pattern)
    if spec.max_drop is None and spec.scope == "layer" and spec.allocation != "sensitivity":
        shares = _shares_by_shape(weights, spec)
        # All of them first: the model is watched meanwhile, and other values in one weight would change what enters
        # others.
        made = [
            (weight, criterion.pruned(model.matrix(weight), shares[weight.name], pattern))
            for weight, criterion in judge(weights)
        ]
        check_judged([weight for weight, _ in made], weights, context)
        model.replace(made)
        return tell(model, [weight for weight, _ in made], context)
    criteria = {weight.name: criterion for weight, criterion in judge(weights)}
    judged = [weight for weight in weights if weight.name in criteria]
    check_judged(judged, weights, context)
    if spec.max_drop is None and spec.scope == "global" and isinstance(pattern, Blocks):
        scores = [criteria[weight.name].scores(model.matrix(weight)) for weight in judged]
        masks = pooled_masks(scores, spec.sparsity or 0.0, pattern)
        model.replace(zip(judged, _masked(model, judged, masks), strict=True))
        return tell(model, judged, context)
    return prune_to(
        model, judged, criteria, _shares_by_outputs(model, judged, criteria, spec, context), pattern, context
    )


def prune_to(
    model: CompressibleModel,
    weights: Sequence[Weight],
    criteria: Criteria,
    shares: allocation.Shares,
    pattern: Pattern,
    context: Context,
) -> CompressibleModel:
    """Prunes each weight in place by a share of its own."""
    model.replace(
        (weight, criteria[weight.name].pruned(model.matrix(weight), shares[weight.name], pattern)) for weight in weights
    )
    return tell(model, weights, context)


def chosen_masks(
    weights: Sequence[Weight],
    matrices: Sequence[Floats],
    criteria: Mapping[str, ByScore],
    sparsity: float,
    spec: WeightPrune,
) -> list[Mask]:
    """Which elements stay when scores alone decide, together or each weight for itself, as the step says.

    Args:
        matrices: Values of ``weights``.
        criteria: Of each, by name.
        sparsity: Of all of them, in place of the step's.
    """
    pattern = parse(spec.pattern)
    paired = list(zip(weights, matrices, strict=True))
    if spec.scope == "global" and isinstance(pattern, Blocks):
        return pooled_masks([criteria[weight.name].scores(own) for weight, own in paired], sparsity, pattern)
    shares = _shares_by_shape(weights, spec.model_copy(update={"sparsity": sparsity}))
    return [criteria[weight.name].stays(own, shares[weight.name], pattern) for weight, own in paired]


def tell(model: CompressibleModel, weights: Sequence[Weight], context: Context) -> CompressibleModel:
    """Says for the report what a model's weights came to."""
    zeros = sum(weight.size - int(np.count_nonzero(model.matrix(weight))) for weight in weights)
    total = sum(weight.size for weight in weights)
    context.changed(f"{zeros} of {total} weights in {len(weights)} tensors are zero")
    if model.leaves_out_zeros:
        context.warn("Zeros are left out of the file only: once loaded, the model is as large and as fast as before.")
    else:
        context.warn("Zeros alone do not shrink the file or speed it up: it stores them like any other value.")
    return model


def check_judged(judged: Sequence[Weight], weights: Sequence[Weight], context: Context) -> None:
    """Tells of weights that a method cannot judge.

    Raises:
        UnsupportedTechnique: It can judge none.
    """
    names = {weight.name for weight in judged}
    left = [weight.layer for weight in weights if weight.name not in names]
    if not judged:
        raise UnsupportedTechnique(
            f"{left[0]} cannot be judged, nor can any other that is selected: {_WHY_NOT}.",
            hint="Give other calibration rows, or prune by magnitude.",
        )
    if left:
        others = f" and {len(left) - 1} more" if len(left) > 1 else ""
        context.warn(f"{left[0]}{others} not pruned: {_WHY_NOT}")


def _shares_by_shape(weights: Sequence[Weight], spec: WeightPrune) -> allocation.Shares:
    spread = allocation.erdos_renyi_kernel if spec.allocation == "erk" else allocation.uniform
    return spread(weights, spec.sparsity or 0.0)


def _shares_by_outputs(
    model: CompressibleModel, weights: Sequence[Weight], criteria: Criteria, spec: WeightPrune, context: Context
) -> allocation.Shares:
    """What pruned weights do to the outputs decides how much of each goes."""
    pattern = parse(spec.pattern)

    def pruned(weight: Weight, share: float) -> Floats:
        return criteria[weight.name].pruned(model.matrix(weight), share, pattern)

    prunable = PrunableWeights(model, weights, pruned)
    if spec.max_drop is not None:
        return find_shares(model, prunable, spec.max_drop, context).shares
    return allocation.by_sensitivity(model, prunable, spec.sparsity or 0.0, context)


def _masked(model: CompressibleModel, weights: Sequence[Weight], masks: Sequence[Mask]) -> Iterator[Floats]:
    for weight, stays in zip(weights, masks, strict=True):
        yield np.where(stays, model.matrix(weight), np.float32(0))
