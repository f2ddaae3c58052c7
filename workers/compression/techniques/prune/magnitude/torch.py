"""Magnitude pruning of torch models."""

import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.weights import as_torch
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune import MagnitudePrune
from workers.compression.techniques.prune.thresholds import zero_smallest


@implements(MagnitudePrune, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def prune_by_magnitude(model: Model, spec: MagnitudePrune, context: Context) -> Model:
    """Zeroes the smallest weights of the selected layers in place; biases and norms are left alone."""
    model = as_torch(model)
    candidates = [weight for weight in model.float_weights() if weight.values.dim() > 1]
    weights = [weight for weight in candidates if weight.is_selected(spec.include, spec.exclude)]
    if not weights:
        raise UnsupportedTechnique(f"None of the model's {len(candidates)} weight matrices is selected for pruning.")
    arrays = [weight.values.float().clone(memory_format=torch.contiguous_format).numpy() for weight in weights]
    zeros = zero_smallest(arrays, spec.sparsity, spec.scope)
    for weight, values in zip(weights, arrays, strict=True):
        model.replace_values(weight.name, torch.from_numpy(values).to(weight.values.dtype))
    total = sum(values.size for values in arrays)
    context.changed(f"{zeros} of {total} weights in {len(weights)} tensors are zero")
    context.warn("Zeros alone do not shrink the file or speed it up: it stores them like any other value.")
    return model
