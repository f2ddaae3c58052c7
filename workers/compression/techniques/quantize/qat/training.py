"""A network that trains while its weights and what enters its layers are rounded; the same for every format."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from workers.compression.context import Context
from workers.compression.families.trainable import Trainable, TrainableModel
from workers.compression.families.weights import CompressibleModel, Role, Weight, selected
from workers.compression.quantization.activations import ActivationGrid
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, UniformWeight, quantize
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.steps.quantize_aware import QatQuantize
from workers.compression.training import lessons
from workers.compression.training.fake_quantization import Dense, RoundedInput, RoundedWeight
from workers.compression.training.feeding import Feed
from workers.compression.training.initial_steps import Watched
from workers.compression.training.network import Network
from workers.compression.training.recovery import course_towards_original
from workers.compression.training.substitutes import Masked

SMALLEST = 128
"""Weights of fewer elements stay floats: their steps and nodes would take more bytes than their integers save."""
WATCHED_ROWS = 256
_ROLES: frozenset[Role] = frozenset({"linear", "convolution", "embedding", "recurrent"})


@dataclass(frozen=True)
class Rounded:
    """What a training came to, besides the float parameters that the model took over.

    Args:
        weights: The weights as integers by name.
        inputs: Grids of what enters layers, by the model's name of the value.
        network: What was trained, rounding and all; the stored model is to answer as it does.
    """

    weights: dict[str, tuple[Weight, UniformWeight]]
    inputs: dict[str, ActivationGrid]
    network: Network


def chosen_weights(model: CompressibleModel, spec: QatQuantize, context: Context) -> list[Weight]:
    """Matrices, kernels and tables in float32 that the step's globs leave in and the format can store as integers."""
    found = []
    for weight in selected(model, spec.include, spec.exclude, SMALLEST)[1]:
        if weight.role not in _ROLES:
            continue
        why_not = _why_not(model, weight, spec)
        if why_not is None:
            found.append(weight)
        else:
            context.warn(f"{weight.name} stays {weight.dtype}: {why_not}.")
    return found


def _why_not(model: CompressibleModel, weight: Weight, spec: QatQuantize) -> str | None:
    if weight.dtype != "float32":
        return "only float32 weights are trained on a grid"
    matrix = model.matrix(weight)
    if not np.isfinite(matrix).all():
        raise NumericalFailure(
            f"{weight.name} has values that are not finite.", hint="Repair the model, or exclude the layer."
        )
    blocks = Blocks.of_matrix(weight.matrix_shape, spec.granularity)
    return model.why_not(weight, quantize(matrix, Grid.of("symmetric", spec.bits), blocks))


def train_rounded(
    model: TrainableModel, weights: Sequence[Weight], kernel_grid: Grid, spec: QatQuantize, context: Context
) -> Rounded:
    """Trains ``model`` in place on the grids on which it will be stored.

    Args:
        weights: Those to be rounded.
        kernel_grid: What integer kernels multiply exactly; the grid of weights that meet 8-bit inputs in 8 bits.

    Raises:
        UnsupportedTechnique: None of the weights is one that learns.
        DatasetMismatch: There are neither labels nor an original to learn from.
    """
    rows = lessons.training_rows(spec, context)
    trainable = model.trainable()
    own = {stored: name for name, stored in trainable.names.items()}
    learning = {own[weight.name]: weight for weight in weights if weight.name in own}
    for weight in weights:
        if weight.name not in own:
            context.warn(f"{weight.name} stays {weight.dtype}: training does not reach it.")
    if not learning:
        raise UnsupportedTechnique("No selected layer has a float32 weight that learns and is worth rounding.")
    inputs = _round_inputs(model, trainable, set(learning), rows, spec, context)
    multiplied = {entrance.weight for entrance in trainable.entrances} if _uses_kernels(spec) else set()
    substitutes = {
        name: _rounded_weight(trainable, name, weight, kernel_grid if name in multiplied else None, spec, context)
        for name, weight in learning.items()
    }
    network = Network(trainable, substitutes)
    course = course_towards_original(model, trainable, rows, spec, spec.teacher, context)
    lessons.run(model, trainable, network, rows, course, spec, context)
    model.adopt(trainable)
    layers = sum(entrance.weight in learning for entrance in trainable.entrances)
    context.changed(
        f"{len(learning)} weights on grids of {spec.bits} bits"
        + (f", what enters {layers} layers on grids of {spec.activation_bits} bits" if inputs else "")
    )
    return Rounded(
        {weight.name: (weight, substitutes[name].form()) for name, weight in learning.items()},
        {value: module.grid() for value, module in inputs.items()},
        network,
    )


def _uses_kernels(spec: QatQuantize) -> bool:
    return spec.bits == 8 and spec.activation_bits == 8


def _rounded_weight(
    trainable: Trainable, name: str, weight: Weight, kernel_grid: Grid | None, spec: QatQuantize, context: Context
) -> RoundedWeight:
    values = trainable.module.get_parameter(name)
    pruned = context.compressed and bool((values == 0).any())
    source: nn.Module = Masked(values) if pruned else Dense(values)
    grid = kernel_grid or Grid.of("symmetric", spec.bits)
    return RoundedWeight(source, weight, grid, per_channel=spec.granularity == "channel")


def _round_inputs(
    model: TrainableModel,
    trainable: Trainable,
    weights: set[str],
    rows: lessons.TrainingRows,
    spec: QatQuantize,
    context: Context,
) -> dict[str, RoundedInput]:
    """Puts rounding modules where activations enter the layers of ``weights``, one per value; by the value's name."""
    if spec.activation_bits is None:
        return {}
    entrances = [entrance for entrance in trainable.entrances if entrance.weight in weights]
    watched = {value: Watched(context.seed) for value in dict.fromkeys(entrance.value for entrance in entrances)}
    for entrance in entrances:
        trainable.module.set_submodule(entrance.module, watched[entrance.value])
    _watch(model, trainable, rows, spec, context)
    rounded = {}
    for value, found in watched.items():
        if not np.isfinite([found.low, found.high]).all():
            raise NumericalFailure(f"The value {value} is not finite on the training rows.")
        rounded[value] = RoundedInput(*found.range(spec.activation_bits), spec.activation_bits)
    for entrance in entrances:
        trainable.module.set_submodule(entrance.module, rounded[entrance.value])
    return rounded


@torch.no_grad()
def _watch(
    model: TrainableModel, trainable: Trainable, rows: lessons.TrainingRows, spec: QatQuantize, context: Context
) -> None:
    """Sends some training rows through the network as it is."""
    feed = Feed(model, spec.batch_size, trainable.compute_batch, context.seed)
    enough = -(-WATCHED_ROWS // (feed.together(rows.train) or spec.batch_size))
    with closing(feed.epoch(rows.train, 0, torch.device("cpu"))) as batches:
        for batch in islice(batches, enough):
            trainable.module(*batch.inputs)
