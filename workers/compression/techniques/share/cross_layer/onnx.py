"""Cross-layer sharing of ONNX models: every reader of a block's matrices reads those of another block."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.sharing import Shared, Tensors, store_once
from workers.compression.families.trainable import as_trainable
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import CrossLayerShare
from workers.compression.techniques.share.cross_layer.sharing import Ties, share_across_layers


@implements(CrossLayerShare, formats=(ModelFormat.ONNX,))
def share_onnx_across_layers(model: Model, spec: CrossLayerShare, context: Context) -> Model:
    """Ties initializers of alike blocks and trains the model, in place."""
    learner = as_trainable(model)
    opened = as_onnx(learner)
    graph = opened.proto.graph
    stored = {tensor.name for tensor in graph.initializer} - {value.name for value in graph.output}

    def tie(ties: Ties) -> None:
        def here(tensors: Tensors) -> Shared:
            return {name: kept for name, kept in ties.items() if name in tensors}, iter(())

        store_once(opened.proto, here)
        opened.changed()

    share_across_layers(learner, stored.__contains__, tie, spec, context)
    return learner
