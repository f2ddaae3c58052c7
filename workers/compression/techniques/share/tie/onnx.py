"""Tying of ONNX weights: every reader of a repeated tensor reads the first copy."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.sharing import repeat_stored
from workers.compression.registry import implements
from workers.compression.specs.errors import NothingCompressed
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.identity import same_as


@implements(TieShare, formats=(ModelFormat.ONNX,))
def tie_initializers(model: Model, spec: TieShare, context: Context) -> Model:
    """Drops initializers that repeat an earlier one of the same graph, in place."""
    model = as_onnx(model)
    before = model.proto.ByteSize()
    dropped = repeat_stored(model.proto, same_as)
    if not dropped:
        raise NothingCompressed("No two stored tensors of the model are identical.")
    model.changed()
    saved = before - model.proto.ByteSize()
    context.changed(f"{dropped} tensors are stored once with another, which saves {saved} bytes")
    return model
