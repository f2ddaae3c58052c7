"""Tying of bare tensors: one copy and a map of the names that mean it."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import as_tensors
from workers.compression.registry import implements
from workers.compression.specs.errors import NothingCompressed
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.identity import same_as


@implements(TieShare, formats=TENSOR_FORMATS)
def tie_tensors(model: Model, spec: TieShare, context: Context) -> Model:
    """Keeps the first of each set of identical tensors; the others become names of it."""
    model = as_tensors(model)
    repeated = same_as(model.tensors())
    if not repeated:
        raise NothingCompressed("No two tensors of the model are identical.")
    saved = sum(model.stored[name].nbytes for name in repeated)
    context.changed(f"{len(repeated)} tensors are stored once with another, which saves {saved} bytes")
    return model.with_shared(repeated)
