"""Magnitude pruning of bare tensors."""

import numpy as np
import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import as_tensors
from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.step import selects
from workers.compression.specs.steps.prune import MagnitudePrune
from workers.compression.techniques.prune.thresholds import zero_smallest


@implements(MagnitudePrune, formats=(ModelFormat.SAFETENSORS, ModelFormat.TORCH_STATE_DICT))
def prune_by_magnitude(model: Model, spec: MagnitudePrune, context: Context) -> Model:
    """Zeroes the smallest values of the selected matrices and kernels; vectors, such as biases, are left alone."""
    model = as_tensors(model)
    names = [
        name
        for name, tensor in model.stored.items()
        if len(tensor.shape) > 1 and tensor.dtype.is_floating_point and selects(name, spec.include, spec.exclude)
    ]
    if not names:
        raise UnsupportedTechnique("None of the model's float tensors of two or more axes is selected for pruning.")
    arrays = [np.array(model.stored[name].load().float().numpy()) for name in names]
    zeros = zero_smallest(arrays, spec.sparsity, spec.scope)
    pruned = {
        name: StoredTensor.of(torch.from_numpy(values)).converted(model.stored[name].dtype)
        for name, values in zip(names, arrays, strict=True)
    }
    context.changed(f"{zeros} of {sum(values.size for values in arrays)} weights in {len(names)} tensors are zero")
    context.warn("Zeros alone do not shrink the file: it stores them like any other value.")
    return model.with_tensors({**model.stored, **pruned})
