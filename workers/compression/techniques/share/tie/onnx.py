"""Tying of ONNX weights: every reader of a repeated tensor reads the first copy."""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.sharing import store_once
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.tie.finding import shared_among, summarize


@implements(TieShare, formats=(ModelFormat.ONNX,))
def tie_initializers(model: Model, spec: TieShare, context: Context) -> Model:
    """Drops initializers that repeat an earlier one of the same graph, in place."""
    model = as_onnx(model)
    before = model.proto.ByteSize()
    dropped = store_once(model.proto, partial(shared_among, spec=spec, context=context))
    model.changed()
    summarize(dropped, before - model.proto.ByteSize(), spec, context)
    return model
