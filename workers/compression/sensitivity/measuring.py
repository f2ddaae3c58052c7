"""Measures how far a model's outputs move when one weight at a time is quantized."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.weights import CompressibleModel, LayerInputs, Weight
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.rounding import quantize_matrix
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.sensitivity.yardstick import Yardstick
from workers.compression.specs.errors import NumericalFailure
from workers.compression.specs.sensitivity import MeasuredOption, SensitivityOptions, WeightSensitivity

SMALLEST_WEIGHT = 1024
"""Matrices with fewer elements stay float: their parameters would cost what their bits save."""


def candidates(model: CompressibleModel, options: SensitivityOptions) -> list[Weight]:
    """The weights that are to be quantized, in graph order."""
    return [
        weight
        for weight in model.weights()
        if weight.size >= SMALLEST_WEIGHT
        and weight.is_selected(options.include, options.exclude)
        and (options.embeddings or weight.role != "embedding")
    ]


def watches_activations(options: SensitivityOptions) -> bool:
    """Whether the algorithm needs to know what enters the layers."""
    return options.algorithm == "gptq"


def blocks_of(weight: Weight, options: SensitivityOptions) -> Blocks:
    """The groups of a weight that share a scale."""
    return Blocks.of_matrix(weight.matrix_shape, "group", options.group_size)


def quantized(
    model: CompressibleModel, weight: Weight, bits: int, options: SensitivityOptions, inputs: LayerInputs | None
) -> UniformWeight:
    """One weight as the options say.

    Raises:
        NumericalFailure: It holds NaN or infinity.
    """
    matrix = model.matrix(weight)
    if not np.isfinite(matrix).all():
        raise NumericalFailure(
            f"The weight {weight.name} of {weight.layer} holds NaN or infinity.",
            reason="weight_not_finite",
            hint="Exclude the layer, or repair the model.",
        )
    return quantize_matrix(
        matrix,
        algorithm=options.algorithm,
        bits=bits,
        scheme=options.scheme,
        blocks=blocks_of(weight, options),
        range="mse",
        inputs=inputs,
    )


def with_inputs(
    model: CompressibleModel, weights: Sequence[Weight], dataset: Dataset, options: SensitivityOptions, threads: int
) -> Iterator[tuple[Weight, LayerInputs | None]]:
    """Each weight once, with what enters its layer if the algorithm asks for that and it can be watched."""
    left = {weight.name: weight for weight in weights}
    if watches_activations(options):
        for weight, inputs in model.layer_inputs(weights, dataset.limited(options.samples), threads):
            del left[weight.name]
            yield weight, inputs
    for weight in left.values():
        yield weight, None


def measure(
    model: CompressibleModel,
    wanted: Mapping[str, tuple[int, ...]],
    found: Iterable[tuple[Weight, LayerInputs | None]],
    options: SensitivityOptions,
    yardstick: Yardstick,
    context: Context,
) -> Iterator[WeightSensitivity]:
    """Quantizes one weight at a time to each number of bits and compares the outputs.

    Args:
        wanted: Numbers of bits by the weight's name.
        found: The weights, with what enters their layers.
    """
    total, done = sum(map(len, wanted.values())), 0
    for number, (weight, inputs) in enumerate(found):
        effects = []
        for bits in wanted[weight.name]:
            context.progress(done / total, f"sensitivity of {weight.layer} at {bits} bits")
            values = quantized(model, weight, bits, options, inputs).restored()
            with model.varied([(weight, values)]) as run:
                effect = yardstick.effect(run)
            effects.append(MeasuredOption(bits=bits, error=effect.error, loss=effect.loss))
            done += 1
        measured = WeightSensitivity(
            name=weight.name, layer=weight.layer, parameters=weight.size, options=tuple(effects)
        )
        context.metric("sensitivity", measured.reference.error, number)
        yield measured
