"""Mixed precision of every kind of network: bits where the outputs need them."""

from collections.abc import Sequence

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import CompressibleModel, Weight, as_compressible
from workers.compression.quantization.allocation import Option
from workers.compression.quantization.form_sizes import uniform_bits
from workers.compression.quantization.uniform import Grid, quantize
from workers.compression.registry import implements
from workers.compression.sensitivity.choosing import Chooser, summary
from workers.compression.sensitivity.measuring import blocks_of, candidates
from workers.compression.sensitivity.survey import Survey
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.sensitivity import SensitivityMap, SensitivityOptions
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
    widths = _storable(model, candidates(model, options), options, context)
    weights = [weight for weight in model.weights() if weight.name in widths]
    if not weights:
        raise UnsupportedTechnique(
            "None of the model's weights that are selected can be stored in any of these numbers of bits.",
            hint="Allow 4 or 8 bits, or check include and exclude.",
        )
    with Survey(model, weights, options, dataset, context) as survey:
        sensitivities = survey.sensitivities(widths)
        layers = [_options_of(weight, widths[weight.name], options, sensitivities) for weight in weights]
        chooser = Chooser(model, weights, layers, options, survey, dataset, context)
        if spec.max_error is not None:
            choice = chooser.within_error(spec.max_error)
        else:
            choice = chooser.within_size(spec.average_bits or 32.0)
    model.store((weight, choice.forms[weight.name]) for weight in weights)
    context.changed(summary(choice, weights))
    return model


def _storable(
    model: CompressibleModel, weights: Sequence[Weight], options: SensitivityOptions, context: Context
) -> dict[str, tuple[int, ...]]:
    """The numbers of bits that the format can store each weight in; weights without any are left out."""
    widths: dict[str, tuple[int, ...]] = {}
    refused: dict[str, list[str]] = {}
    for weight in weights:
        reasons = {bits: _why_not(model, weight, bits, options) for bits in sorted(set(options.bits))}
        possible = tuple(bits for bits, reason in reasons.items() if reason is None)
        if possible:
            widths[weight.name] = possible
        else:
            reason = next(reason for reason in reasons.values() if reason is not None)
            refused.setdefault(reason, []).append(weight.layer)
    for reason, layers in refused.items():
        others = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        context.warn(f"{layers[0]}{others} stays float: {reason}")
    return widths


def _why_not(model: CompressibleModel, weight: Weight, bits: int, options: SensitivityOptions) -> str | None:
    form = quantize(
        np.zeros(weight.matrix_shape, np.float32),
        Grid.of(options.scheme, bits),
        blocks_of(weight, options),
        options.scheme,
    )
    return model.why_not(weight, form)


def _options_of(
    weight: Weight, widths: tuple[int, ...], options: SensitivityOptions, sensitivities: SensitivityMap
) -> list[Option]:
    measured = sensitivities.of(weight.name)
    blocks = blocks_of(weight, options)
    return [Option(bits, uniform_bits(blocks, bits, options.scheme), measured[bits].error) for bits in widths]
