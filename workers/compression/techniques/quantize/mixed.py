"""Mixed precision of every kind of network: bits where the outputs need them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import CompressibleModel, Weight, as_compressible
from workers.compression.quantization.allocation import Option
from workers.compression.quantization.uniform import Grid, UniformWeight, quantize
from workers.compression.registry import implements
from workers.compression.sensitivity.choosing import Chooser, summary
from workers.compression.sensitivity.measuring import blocks_of, candidates
from workers.compression.sensitivity.survey import Survey
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.sensitivity import SensitivityOptions
from workers.compression.specs.steps.quantize_weights import MixedQuantize


@implements(MixedQuantize)
def quantize_mixed(model: Model, spec: MixedQuantize, context: Context) -> Model:
    """Measures sensitivities, or takes those that are known, and stores each weight in the bits that it was allotted.

    Raises:
        ConstraintInfeasible: The budget cannot be kept; the detail says what can be reached.
    """
    model = as_compressible(model)
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("Sensitivities are measured on calibration data; none was given.")
    options = SensitivityOptions(**{name: getattr(spec, name) for name in SensitivityOptions.model_fields})
    ways = _storable(model, candidates(model, options), options, context)
    weights = [weight for weight in model.weights() if weight.name in ways]
    if not weights:
        raise UnsupportedTechnique(
            "None of the model's weights that are selected can be stored in any of these numbers of bits.",
            hint="Allow 4 or 8 bits, or check include and exclude.",
        )
    with Survey(model, weights, options, dataset, context) as survey:
        found = survey.sensitivities({name: tuple(way.bits for way in known) for name, known in ways.items()})
        errors = {weight.name: found.of(weight.name) for weight in weights}
        layers = [
            [Option(way.bits, way.cost, errors[weight.name][way.bits].error) for way in ways[weight.name]]
            for weight in weights
        ]
        chooser = Chooser(model, weights, layers, options, survey, dataset, context)
        if spec.max_error is not None:
            choice = chooser.within_error(spec.max_error)
        else:
            choice = chooser.within_size(spec.average_bits or 32.0)
    model.store((weight, choice.forms[weight.name]) for weight in weights)
    context.changed(summary(choice, weights))
    return model


@dataclass(frozen=True)
class _Way:
    """A number of bits that a weight can be stored in, and what it takes then."""

    bits: int
    cost: int


def _storable(
    model: CompressibleModel, weights: Sequence[Weight], options: SensitivityOptions, context: Context
) -> dict[str, list[_Way]]:
    """How the format can store each weight; weights that it cannot are left out."""
    found: dict[str, list[_Way]] = {}
    refused: dict[str, list[str]] = {}
    for weight in weights:
        reason = None
        for bits in sorted(set(options.bits)):
            form = _like(weight, bits, options)
            why_not = model.why_not(weight, form)
            if why_not is None:
                found.setdefault(weight.name, []).append(_Way(bits, model.stored_bits(weight, form)))
            reason = reason or why_not
        if weight.name not in found:
            refused.setdefault(str(reason), []).append(weight.layer)
    for why, layers in refused.items():
        others = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        context.warn(f"{layers[0]}{others} stays float: {why}")
    return found


def _like(weight: Weight, bits: int, options: SensitivityOptions) -> UniformWeight:
    """A form of the weight's shape, for questions to which its values do not matter."""
    zeros, grid = np.zeros(weight.matrix_shape, np.float32), Grid.of(options.scheme, bits)
    return quantize(zeros, grid, blocks_of(weight, options), options.scheme)
