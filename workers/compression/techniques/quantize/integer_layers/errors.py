"""How far a layer's output moves when its input and weight are rounded, measured on calibration rows."""

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from workers.compression.families.onnx.sessions import open_session
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import Grid, decode, encode, parameters_for

Floats = npt.NDArray[np.float32]

ACTIVATION_GRID = Grid(signed=False)
_IR_VERSION = 8


def round_activation(values: Floats, limits: tuple[float, float]) -> Floats:
    """``values`` as uint8 with the range ``limits`` would keep them."""
    blocks = Blocks.spanning(values.shape, None)
    low, high = (np.full(blocks.counts, limit, np.float32) for limit in limits)
    parameters = parameters_for(low, high, ACTIVATION_GRID)
    return decode(encode(values, parameters, ACTIVATION_GRID, blocks), parameters, blocks)


class LayerRunner:
    """Runs one layer's node by itself, without its bias."""

    def __init__(self, node: NodeProto, opset: int) -> None:
        copy = helper.make_node(node.op_type, ["x", "w"], ["y"])
        copy.attribute.extend(node.attribute)
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "w")]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([copy], "layer", inputs, [output])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION)
        self._session = open_session(proto.SerializeToString())

    def __call__(self, activation: Floats, weight: Floats) -> Floats:
        """The layer's output."""
        result: Floats = self._session.run(None, {"x": activation, "w": weight})[0]
        return result
