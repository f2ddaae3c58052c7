"""Tying of bare tensors: one copy and a map of the names that mean it."""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Array, Model
from workers.compression.families.tensors.model import as_tensors
from workers.compression.families.tensors.stored import StoredTensor, to_numpy
from workers.compression.registry import implements
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.tie.finding import shared_among, summarize


@implements(TieShare, formats=TENSOR_FORMATS)
def tie_tensors(model: Model, spec: TieShare, context: Context) -> Model:
    """Keeps one of each set of tensors that are the same; the others become names of it."""
    model = as_tensors(model)
    plain = {name: partial(_values, tensor) for name, tensor in model.stored.items() if tensor.is_plain}
    shared, changed = shared_among(plain, spec, context)
    saved = sum(model.stored[name].nbytes for name in shared)
    model.change(changed)
    summarize(len(shared), saved, spec, context)
    return model.with_shared(shared)


def _values(tensor: StoredTensor) -> Array:
    return to_numpy(tensor.load())
