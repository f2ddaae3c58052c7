"""Static 8-bit quantization of exported torch programs.

Weights are stored as integers and what enters their layers is rounded to 8 bits by torch's own operator, so the answers
are those of an integer model. torch computes them in float on CPUs: the file shrinks, the speed stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.model import Model
from workers.compression.families.observed_inputs import rows_of
from workers.compression.families.torch.pt2_batch_norm import fold_batch_norms
from workers.compression.families.torch.pt2_entrances import input_position
from workers.compression.families.torch.pt2_head import copied_program
from workers.compression.families.torch.pt2_layers import readers_of
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_program import placeholders
from workers.compression.families.torch.pt2_rounded_inputs import round_inputs
from workers.compression.families.weights import LayerInputs, Weight, selected
from workers.compression.quantization.activations import ActivationGrid
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.gptq import compensated
from workers.compression.quantization.uniform import Grid, UniformWeight, encode, quantize
from workers.compression.quantization.weight_ranges import fitted
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.techniques.quantize.integer_layers.budget import (
    CHECKED_ROWS,
    MAX_ROUNDS,
    OUTPUT_BUDGET_DB,
    closeness_db,
    fewer_and_fewer,
    ratio_db,
)
from workers.compression.techniques.quantize.static.choosing import with_best_range
from workers.compression.techniques.quantize.static.torch_entrances import watch_entrances

Floats = npt.NDArray[np.float32]

GRID = Grid.of("symmetric", 8)
SMALLEST_WEIGHT = 256
SMALLEST_STORED = 1024
"""Scales would eat what quantizing fewer elements saves."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight with its integers, the value that enters, and how well the products are kept."""

    weight: Weight
    form: UniformWeight
    entering: str
    grid: ActivationGrid
    sqnr_db: float
    shift: Floats | None = None


@implements(StaticQuantize, formats=(ModelFormat.PT2,))
def quantize_statically(model: Model, spec: StaticQuantize, context: Context) -> Model:
    """Quantizes layers of ``model`` as long as its outputs on calibration rows stay within the budget."""
    if not isinstance(model, Pt2Model):
        raise UnsupportedTechnique("Static quantization of programs needs an exported program.")
    if spec.range != "auto":
        return _quantized(model, spec, context)
    original = model

    def anew(chosen: StaticQuantize, own: Context) -> Pt2Model:
        return _quantized(Pt2Model(copied_program(original.program), 0), chosen, own)

    return with_best_range(original, spec, context, anew)


def _quantized(model: Pt2Model, spec: StaticQuantize, context: Context) -> Pt2Model:
    dataset = context.any_data()
    if dataset is None:
        raise UnsupportedTechnique("Static quantization needs calibration rows.")
    folded = fold_batch_norms(model.program)
    if folded:
        context.changed(f"{folded} batch norms folded into the layers before them")
    model.changed()
    dataset = dataset.limited(spec.samples)
    layers = list(_layers(model, spec, dataset, context))
    if not layers:
        raise UnsupportedTechnique(
            "No selected layer multiplies an activation with a stored float weight that can be watched.",
            hint="quantize.dynamic stores other weights as integers too.",
        )
    return _within_budget(model, layers, spec, dataset.limited(CHECKED_ROWS), context)


def _layers(model: Pt2Model, spec: StaticQuantize, dataset: Dataset, context: Context) -> Iterator[Layer]:
    """Every selected layer whose input can be watched, quantized by itself."""
    weights = [
        weight
        for weight in model.weights()
        if weight.role in {"linear", "convolution"}
        and weight.size >= SMALLEST_WEIGHT
        and weight.is_selected(spec.include, spec.exclude)
    ]
    found = watch_entrances(model, weights, dataset, spec.range, context)
    watched = [weight for weight in weights if weight.name in found.of_weight]
    for count, (weight, inputs) in enumerate(model.layer_inputs(watched, dataset, context.target.threads)):
        entering = found.values[found.of_weight[weight.name]]
        matrix = model.matrix(weight)
        form = _rounded(matrix, spec, inputs)
        error = matrix - form.restored()
        signal, noise = _energy(matrix, inputs.gram), _energy(error, inputs.gram)
        noise += float(np.square(matrix, dtype=np.float64).sum()) * entering.grid.scale**2 / 12
        shift = _mean_error(weight, error, entering.means) if spec.bias_correction else None
        yield Layer(weight, form, _entering_name(model, weight.name), entering.grid, ratio_db(signal, noise), shift)
        context.progress(0.3 + 0.5 * count / len(watched), weight.layer)


def _entering_name(model: Pt2Model, weight: str) -> str:
    """The program's name of what enters the layer of a weight; an opened module may call its inputs otherwise."""
    for reader, via in readers_of(placeholders(model.program)[weight]):
        position = input_position(reader, via)
        entering = None if position is None else reader.args[position]
        if isinstance(entering, torch.fx.Node):
            return entering.name
    raise UnsupportedTechnique(f"Nothing that can be rounded enters the layer of {weight}.")


def _rounded(matrix: Floats, spec: StaticQuantize, inputs: LayerInputs) -> UniformWeight:
    """The matrix as integers, adaptively where that is asked for and errs less on the rows."""
    blocks = Blocks.of_matrix((matrix.shape[0], matrix.shape[1]), spec.granularity)
    nearest = quantize(matrix, GRID, blocks)
    if spec.rounding == "nearest":
        return nearest
    parameters = fitted(matrix, GRID, blocks, "symmetric", "mse", np.ascontiguousarray(np.diagonal(inputs.gram)))
    try:
        adaptive = compensated(matrix, parameters, GRID, blocks, inputs.gram)
    except np.linalg.LinAlgError:
        return nearest
    return min(nearest, adaptive, key=lambda form: _energy(matrix - form.restored(), inputs.gram))


def _energy(matrix: Floats, gram: Floats) -> float:
    """Mean squared length of the matrix's products with the inputs of ``gram``."""
    return float(np.einsum("ij,ij->", matrix @ gram, matrix, dtype=np.float64))


def _mean_error(weight: Weight, error: Floats, means: Floats) -> Floats:
    """What rounding the weight takes from each output on the mean (arXiv:1906.04721), shape (outputs,)."""
    taps = error.reshape(len(error), -1, int(np.prod(weight.shape[2:]))).sum(axis=2)
    groups = len(means) // taps.shape[1]
    by_group = taps.reshape(groups, -1, taps.shape[1])
    shift: Floats = np.einsum("goc,gc->go", by_group, means.reshape(groups, -1)).reshape(-1)
    return shift


def _within_budget(
    model: Pt2Model, layers: list[Layer], spec: StaticQuantize, dataset: Dataset, context: Context
) -> Pt2Model:
    """A copy of ``model`` with as many layers quantized as keep its outputs close enough."""
    batches = list(rows_of(model, dataset, context.target.threads))
    exact = [model.run(batch) for batch in batches]
    for number, kept in enumerate(fewer_and_fewer(layers, lambda layer: layer.sqnr_db, MAX_ROUNDS)):
        made = Pt2Model(copied_program(model.program), 0)
        _write(made, kept)
        stored = _store_others(made, spec)
        found = closeness_db(exact, [made.run(batch) for batch in batches])
        context.progress(0.8 + 0.2 * number / MAX_ROUNDS, f"{len(kept)} layers, {found:.1f} dB")
        if found >= OUTPUT_BUDGET_DB:
            _report(kept, layers, stored, found, context)
            return made
    raise UnsupportedTechnique(
        f"No set of layers keeps the model's outputs within {OUTPUT_BUDGET_DB:g} dB of the original on the "
        "calibration rows.",
        hint="Try range 'mse', more samples, or quantize.dynamic.",
    )


def _write(model: Pt2Model, layers: list[Layer]) -> None:
    round_inputs(
        model.program, [layer.weight.name for layer in layers], {layer.entering: layer.grid for layer in layers}
    )
    for layer in layers:
        bias = _bias_of(model, layer.weight.name)
        if layer.shift is not None and bias is not None:
            values = model.program.state_dict[bias].detach()
            model.replace_values(bias, values + torch.from_numpy(layer.shift).to(values.dtype))
    model.changed()
    model.store((layer.weight, layer.form) for layer in layers)


def _bias_of(model: Pt2Model, weight: str) -> str | None:
    """The stored bias of the one layer that reads a weight, where nothing else reads it."""
    names = {node: name for name, node in placeholders(model.program).items()}
    readers = list(readers_of(placeholders(model.program)[weight]))
    if len(readers) != 1:
        return None
    reader = readers[0][0]
    bias = reader.args[2] if len(reader.args) > 2 else reader.kwargs.get("bias")
    alone = isinstance(bias, torch.fx.Node) and len(bias.users) == 1
    return names.get(bias) if alone and isinstance(bias, torch.fx.Node) else None


def _store_others(model: Pt2Model, spec: StaticQuantize) -> int:
    """Stores large weights that are still floats as integers; returns how many."""
    forms = []
    for weight in selected(model, spec.include, spec.exclude, SMALLEST_STORED)[1]:
        matrix = model.matrix(weight)
        blocks = Blocks.of_matrix(weight.matrix_shape, spec.granularity)
        parameters = fitted(matrix, GRID, blocks, "symmetric", "mse")
        form = UniformWeight(encode(matrix, parameters, GRID, blocks), parameters, GRID, blocks)
        if model.why_not(weight, form) is None:
            forms.append((weight, form))
    model.store(forms)
    return len(forms)


def _report(kept: list[Layer], layers: list[Layer], stored: int, closeness: float, context: Context) -> None:
    context.changed(f"{len(kept)} layers have integer weights and inputs rounded to 8 bits; torch computes in float")
    if stored:
        context.changed(f"{stored} more weights stored as integers alone")
    context.log(f"outputs on calibration rows are within {closeness:.1f} dB of the original")
    if len(kept) < len(layers):
        context.warn(
            f"{len(layers) - len(kept)} of {len(layers)} layers keep float inputs: on the calibration rows, "
            "rounding them moved the outputs too far."
        )
