"""What operators relate that compute element by element, or channel by channel."""

from workers.compression.families.onnx.structure.call import Call, Rule
from workers.compression.structure.network import CHANNEL_FROM
from workers.compression.structure.relations import Axes


def _alone(call: Call) -> list[Axes]:
    """Functions of one value; further inputs, such as bounds, are the same for all channels."""
    call.expect_one_output()
    for slot in range(1, len(call.place.node.input)):
        if call.has(slot):
            call.relations.lock(*call.axes(slot))
    return [call.axes(0)]


def _together(call: Call) -> list[Axes]:
    return [call.relations.broadcast(call.operands())]


def _slopes(call: Call) -> list[Axes]:
    return [call.relations.broadcast([call.axes(0), call.axes(1)])]


def _by_channel(call: Call) -> list[Axes]:
    call.expect_one_output()
    return [call.relations.by_channel(call.axes(0), call.operands()[1:])]


def _instance_norm(call: Call) -> list[Axes]:
    call.relations.lock(*call.axes(0)[CHANNEL_FROM:])
    return _by_channel(call)


def _layer_norm(call: Call) -> list[Axes]:
    call.expect_one_output()
    axes = call.axes(0)
    over = axes[call.integer("axis", -1) % len(axes) :]
    parameters = [call.axes(slot) for slot in range(1, len(call.place.node.input)) if call.has(slot)]
    return [call.relations.normalized(axes, over, parameters)]


def _softmax(call: Call) -> list[Axes]:
    axes = call.axes(0)
    newer = call.opset >= 13
    first = call.integer("axis", -1 if newer else 1) % len(axes)
    return [call.relations.normalized(axes, axes[first : first + 1] if newer else axes[first:])]


def _pool(call: Call) -> list[Axes]:
    call.expect_one_output()
    return [call.relations.resized(call.axes(0), call.shape())]


def _reduce(call: Call) -> list[Axes]:
    axes = call.axes(0)
    given = call.integers("axes", 1)
    if not given and call.integer("noop_with_empty_axes", 0):
        return [axes]
    return [call.relations.reduced(axes, given or range(len(axes)), keep=bool(call.integer("keepdims", 1)))]


_ALONE = """Abs Cast Ceil Celu Clip Cos Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN
    LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign Sqrt Swish Tanh
    ThresholdedRelu com.microsoft.Gelu com.microsoft.QuickGelu"""
_TOGETHER = """Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor
    com.microsoft.BiasGelu com.microsoft.FastGelu"""
_POOLS = "AveragePool GlobalAveragePool GlobalLpPool GlobalMaxPool LpPool MaxPool"
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(_ALONE.split(), _alone),
    **dict.fromkeys(_TOGETHER.split(), _together),
    **dict.fromkeys(_POOLS.split(), _pool),
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS.split()},
    "PRelu": _slopes,
    "BatchNormalization": _by_channel,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "SimplifiedLayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
    "Hardmax": _softmax,
}
