"""Takes units out of networks of every format."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds, synthetic
from workers.compression.families.model import Array, Feeds
from workers.compression.families.structured import Shrinkable
from workers.compression.families.weights import CompressibleModel, Floats, LayerInputs, Weight, finite_matrix
from workers.compression.pruning.gradients import finite_gradients, gradients_by_row, rows_with_a_loss
from workers.compression.specs.errors import (
    ConstraintInfeasible,
    DatasetMismatch,
    NumericalFailure,
    UnsupportedTechnique,
)
from workers.compression.specs.step import selects
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.structure.compensation import without_columns
from workers.compression.structure.importance import (
    Scores,
    by_activations,
    by_gradients,
    by_magnitude,
    columns_of,
    comparable,
)
from workers.compression.structure.selection import Limits, most, select
from workers.compression.structure.units import Group, Removed, Structure
from workers.compression.techniques.prune.structured.tolerated import find_units

_TOLERANCE = 1e-3
"""Largest difference, in relation to the largest output, between a smaller model and the one with zeros: rounding."""


def prune_structured(
    model: CompressibleModel, read: Callable[[Feeds], Shrinkable], spec: StructuredPrune, context: Context
) -> None:
    """Removes units in place and fits what reads them.

    Args:
        read: Finds the model's units, given feeds of one row.

    Raises:
        UnsupportedTechnique: Nothing can be taken out.
        ConstraintInfeasible: Less than what is asked for can be taken out.
        NumericalFailure: A weight holds NaN or infinity, or the smaller model computes something else than it should.
    """
    for weight in model.weights():
        finite_matrix(model, weight)
    rows = _calibration(spec, context)
    feeds = _one_row(model, rows, context)
    shrinkable = read(feeds)
    structure = shrinkable.structure
    groups = _selected(shrinkable, model, spec)
    context.progress(0.1, "watching the layers")
    scores = comparable(
        _scores(model, structure, rows, spec, context), groups, "layer" if shrinkable.alike else spec.scope
    )
    fit = partial(_fitted, model, structure, rows if spec.compensate else None, context)
    if spec.max_drop is None:
        removed = _chosen(structure, groups, scores, spec)
    else:
        choose = partial(_about, structure, groups, scores, spec)
        removed = find_units(model, sum(len(group.units) for group in groups), choose, fit, spec.max_drop, context)
    context.progress(0.5, "fitting the layers")
    model.replace(fit(removed))
    expected = model.run(feeds)
    shrinkable.shrink(removed)
    _check(model.run(feeds), expected)
    context.changed(_summary(structure, groups, removed))


def _calibration(spec: StructuredPrune, context: Context) -> Dataset | None:
    if not spec.required():
        return None
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("Activations can only be watched on calibration data.", reason="calibration_needed")
    return dataset.limited(spec.samples)


def _selected(shrinkable: Shrinkable, model: CompressibleModel, spec: StructuredPrune) -> list[Group]:
    """Groups of which all makers may be touched."""
    layers = {weight.name: weight.layer for weight in model.weights()}
    found = []
    for group in shrinkable.groups:
        names = [(layers[name], name) for name in group.makers if name in layers]
        wanted = any(selects(name, spec.include, ()) for pair in names for name in pair)
        kept = any(not selects(name, (), spec.exclude) for pair in names for name in pair)
        if names and wanted and not kept and group.kind in spec.what and len(group.units) > 1:
            found.append(group)
    if not found:
        raise UnsupportedTechnique(
            "No channels, neurons or heads of the model can be removed: all are fixed by its outputs, by operators "
            "that look at all channels together, or by include, exclude and what.",
            hint="Prune single weights instead (prune.magnitude), or select more layers.",
        )
    if shrinkable.alike and len(found) < len(shrinkable.groups):
        raise UnsupportedTechnique(
            "As many neurons have to go from every layer of this format, so none can be left out.",
            hint="Leave out include and exclude, or export the model to ONNX or with torch.export.",
        )
    return found


def _scores(
    model: CompressibleModel, structure: Structure, rows: Dataset | None, spec: StructuredPrune, context: Context
) -> Scores:
    weights = [weight for weight in model.weights() if weight.name in structure.stored]
    matrices = ((weight, model.matrix(weight)) for weight in weights)
    if spec.importance == "magnitude":
        return by_magnitude(structure, matrices)
    readers = [weight for weight in weights if columns_of(structure, weight).any()]
    if spec.importance == "taylor":
        return _taylor(model, structure, readers, rows_with_a_loss(rows, spec.loss), spec, context)
    watched = _watched(model, readers, rows, context)
    return by_activations(structure, ((weight, model.matrix(weight), inputs) for weight, inputs in watched))


def _taylor(
    model: CompressibleModel,
    structure: Structure,
    readers: Sequence[Weight],
    rows: Dataset,
    spec: StructuredPrune,
    context: Context,
) -> Scores:
    by_name = {weight.name: weight for weight in readers}
    gradients = (
        {
            name: np.asarray(by_name[name].to_matrix(finite_gradients(by_name[name], found)), np.float32)
            for name, found in of_row.items()
        }
        for of_row in gradients_by_row(model, readers, rows, spec.loss, context)
    )
    return by_gradients(structure, [(weight, model.matrix(weight)) for weight in readers], gradients)


def _watched(
    model: CompressibleModel, weights: Sequence[Weight], rows: Dataset | None, context: Context
) -> Iterator[tuple[Weight, LayerInputs | None]]:
    """Each weight with what enters it; without where that cannot be watched."""
    left = {weight.name: weight for weight in weights}
    if rows is not None:
        for weight, inputs in model.layer_inputs(weights, rows, context.threads):
            if np.isfinite(inputs.gram).all():
                del left[weight.name]
                yield weight, inputs
    yield from ((weight, None) for weight in left.values())


def _chosen(structure: Structure, groups: Sequence[Group], scores: Scores, spec: StructuredPrune) -> Removed:
    nothing = np.zeros(structure.count, np.bool_)
    before, candidates = structure.macs(nothing), sum(len(group.units) for group in groups)

    def share(removed: Removed) -> float:
        if spec.macs is None:
            return float(np.count_nonzero(removed)) / candidates
        return 1.0 - structure.macs(removed) / before

    wanted = spec.macs if spec.macs is not None else spec.sparsity or 0.0
    limits = Limits(spec.least, spec.round_to)
    removed = select(groups, scores, limits, structure.count, lambda removed: share(removed) >= wanted)
    if removed is None:
        reached = share(most(groups, scores, limits, structure.count))
        what = "multiply-accumulates" if spec.macs is not None else "units"
        raise ConstraintInfeasible(
            f"Of the {what} at most {reached:.1%} can be removed, not {wanted:.1%}.",
            hint="Ask for less, lower least or round_to, or select more layers.",
        )
    return removed


def _about(
    structure: Structure, groups: Sequence[Group], scores: Scores, spec: StructuredPrune, share: float
) -> Removed:
    """About this share of the units, or as many as may go."""
    wanted = share * sum(len(group.units) for group in groups)
    limits = Limits(spec.least, spec.round_to)
    removed = select(groups, scores, limits, structure.count, lambda removed: int(np.count_nonzero(removed)) >= wanted)
    return most(groups, scores, limits, structure.count) if removed is None else removed


def _fitted(
    model: CompressibleModel, structure: Structure, rows: Dataset | None, context: Context, removed: Removed
) -> list[tuple[Weight, Floats]]:
    """Weights that read removed units: with zeros there, and fitted to ``rows`` if there are any."""
    gone = {weight.name: removed[columns_of(structure, weight)] for weight in model.weights()}
    readers = [weight for weight in model.weights() if gone[weight.name].any()]
    return [
        (weight, without_columns(model.matrix(weight), gone[weight.name], None if inputs is None else inputs.gram))
        for weight, inputs in _watched(model, readers, rows, context)
    ]


def _one_row(model: CompressibleModel, rows: Dataset | None, context: Context) -> Feeds:
    dataset = rows or context.any_data()
    if dataset is None:
        return first_feeds(synthetic(model.inputs, 1, context.seed, {}), model.inputs, None, 1)
    return first_feeds(replace(dataset, order=dataset.order[:1]), model.inputs, model.tokenizer_file(), 1)


def _check(outputs: Sequence[Array], expected: Sequence[Array]) -> None:
    """What no weight reads any more may be left out: the outputs are those of before, but for rounding."""
    for output, wanted in zip(outputs, expected, strict=True):
        if np.shape(output) != np.shape(wanted):
            raise NumericalFailure("Without the removed channels the model's outputs have another shape.")
        if np.issubdtype(wanted.dtype, np.floating) and wanted.size:
            largest = max(float(np.abs(wanted).max()), 1.0)
            if not float(np.abs(np.subtract(output, wanted)).max()) <= _TOLERANCE * largest:
                raise NumericalFailure("Without the removed channels the model computes something else.")


def _summary(structure: Structure, groups: Sequence[Group], removed: Removed) -> str:
    gone, all_units = Counter[str](), Counter[str]()
    for group in groups:
        gone[group.kind] += int(np.count_nonzero(removed[group.units]))
        all_units[group.kind] += len(group.units)
    parts = [f"{gone[kind]} of {all_units[kind]} {kind}" for kind in all_units]
    before, after = structure.macs(np.zeros_like(removed)), structure.macs(removed)
    return f"removed {', '.join(parts)}: {1 - after / before:.1%} fewer multiply-accumulates"
