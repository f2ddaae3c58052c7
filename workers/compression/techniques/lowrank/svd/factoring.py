"""Low-rank factors of a network's layers, ranks chosen together under a budget; for every format."""

from collections.abc import Sequence

import numpy as np

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.factorization.truncation import Decomposition, Factors
from workers.compression.families.weights import CompressibleModel, Weight, finite_matrix
from workers.compression.quantization.allocation import Option, least_error
from workers.compression.sensitivity.yardstick import Yardstick
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.steps.lowrank import SvdLowrank

SMALLEST = 1024
"""Elements of a weight; in smaller ones two layers for one save nothing worth a node."""
_RANKS = 32
"""Ranks of a layer among which is chosen, at most."""


def choose_factors(
    model: CompressibleModel, candidates: Sequence[Weight], spec: SvdLowrank, context: Context
) -> dict[str, Factors]:
    """The factors of the weights that two layers are to replace, by name.

    Args:
        candidates: Weights of the model that can be replaced so.

    Raises:
        ConstraintInfeasible: The lowest ranks take more than the budget; the detail says what can be reached.
    """
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("What enters the layers is seen on calibration data; none was given.")
    weights = _chosen(candidates, spec)
    found = _decompositions(model, weights, dataset, spec, context)
    layers = _options(model, weights, found, dataset, spec, context)
    total = sum(weight.size for weight in weights)
    allocation = least_error(layers, spec.keep * total)
    ranks = {weight: option.bits for weight, option in zip(weights, allocation.chosen, strict=True) if option.bits}
    context.changed(
        f"{len(ranks)} of {len(weights)} layers became two, of ranks {min(ranks.values())} to {max(ranks.values())}; "
        f"{allocation.cost:.0f} of their {total} parameters stay"
    )
    return {weight.name: found[weight.name].truncated(rank) for weight, rank in ranks.items()}


def _chosen(candidates: Sequence[Weight], spec: SvdLowrank) -> list[Weight]:
    possible = [weight for weight in candidates if weight.size >= SMALLEST and _ranks(weight, spec)]
    chosen = [weight for weight in possible if weight.is_selected(spec.include, spec.exclude)]
    if not chosen:
        raise UnsupportedTechnique(
            f"None of the {len(possible)} layers that two thinner ones could replace is selected.",
            hint="Matrix products and undivided convolutions can be; check include, exclude and round_to.",
        )
    return chosen


def _ranks(weight: Weight, spec: SvdLowrank) -> list[int]:
    """Multiples of ``round_to`` at which the two layers have fewer parameters than the one, evenly spread."""
    rows, columns = weight.matrix_shape
    highest = (weight.size - 1) // (rows + columns)
    ranks = np.arange(spec.round_to, min(highest, rows, columns) + 1, spec.round_to)
    places = np.unique(np.linspace(0, len(ranks) - 1, min(len(ranks), _RANKS)).round().astype(int))
    return [int(ranks[place]) for place in places]


def _decompositions(
    model: CompressibleModel, weights: list[Weight], dataset: Dataset, spec: SvdLowrank, context: Context
) -> dict[str, Decomposition]:
    grams = {
        weight.name: inputs.gram
        for weight, inputs in model.layer_inputs(weights, dataset.limited(spec.samples), context.threads)
    }
    found = {}
    for number, weight in enumerate(weights):
        context.progress(0.5 * number / len(weights), weight.layer)
        matrix, gram = finite_matrix(model, weight), grams.get(weight.name)
        if gram is None or not np.isfinite(gram).all():
            context.warn(f"{weight.layer}: all inputs count the same, for what enters the layer cannot be watched.")
            gram = None
        found[weight.name] = Decomposition(matrix, gram)
    return found


def _options(
    model: CompressibleModel,
    weights: list[Weight],
    found: dict[str, Decomposition],
    dataset: Dataset,
    spec: SvdLowrank,
    context: Context,
) -> list[list[Option]]:
    """For every layer its ranks and, called 0, the layer as it is, with what each adds to the outputs' error.

    One rank is tried. At the others the outputs' error is in proportion to the layer's own.
    """
    yardstick = Yardstick(model.run, model.inputs, model.tokenizer_file(), dataset, spec.sensitivity_samples)
    layers = []
    for number, weight in enumerate(weights):
        context.progress(0.5 + 0.5 * number / len(weights), f"effect of {weight.layer}")
        ranks, errors = _ranks(weight, spec), found[weight.name].errors
        tried = ranks[len(ranks) // 2]
        with model.varied([(weight, found[weight.name].truncated(tried).product())]) as run:
            effect = yardstick.effect(run).error
        share = effect / errors[tried] if errors[tried] > 0.0 else 0.0
        pairs = sum(weight.matrix_shape)
        layers.append([Option(rank, rank * pairs, share * float(errors[rank])) for rank in ranks])
        layers[-1].append(Option(0, weight.size, 0.0))
    return layers
