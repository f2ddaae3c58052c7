"""What operators relate that compute element by element, or channel by channel."""

from workers.compression.families.onnx.structure.call import Call, Rule, Unrelated
from workers.compression.structure.relations import Axes, fixed

_CHANNEL_FROM = 2
"""Axes before are rows and channels, those from here on are spatial."""


def _alone(call: Call) -> list[Axes]:
    """Functions of one value; further inputs, such as bounds, are the same for all channels."""
    if len([name for name in call.place.node.output if name]) > 1:
        raise Unrelated
    for slot in range(1, len(call.place.node.input)):
        if call.has(slot):
            call.relations.lock(*call.axes(slot))
    return [call.axes(0)]


def _together(call: Call) -> list[Axes]:
    return [call.relations.broadcast(call.operands())]


def _slopes(call: Call) -> list[Axes]:
    return [call.relations.broadcast([call.axes(0), call.axes(1)])]


def _by_channel(call: Call) -> list[Axes]:
    """Each channel is shifted and scaled by numbers of its own."""
    if len([name for name in call.place.node.output if name]) > 1:
        raise Unrelated
    axes = call.axes(0)
    for slot in range(1, len(call.place.node.input)):
        call.relations.link(call.axes(slot)[0], axes[1])
    return [axes]


def _instance_norm(call: Call) -> list[Axes]:
    call.relations.lock(*call.axes(0)[_CHANNEL_FROM:])
    return _by_channel(call)


def _layer_norm(call: Call) -> list[Axes]:
    axes = call.axes(0)
    first = call.integer("axis", -1) % len(axes)
    call.relations.lock(*axes[first:])
    for slot in range(1, len(call.place.node.input)):
        if call.has(slot):
            call.relations.lock(*call.axes(slot))
    if len([name for name in call.place.node.output if name]) > 1:
        raise Unrelated
    return [axes]


def _softmax(call: Call) -> list[Axes]:
    axes = call.axes(0)
    newer = call.opset >= 13
    first = call.integer("axis", -1 if newer else 1) % len(axes)
    call.relations.lock(*(axes[first : first + 1] if newer else axes[first:]))
    return [axes]


def _pool(call: Call) -> list[Axes]:
    if len([name for name in call.place.node.output if name]) > 1:
        raise Unrelated
    axes = call.axes(0)
    call.relations.lock(*axes[_CHANNEL_FROM:])
    return [(*axes[:_CHANNEL_FROM], *fixed(call.shape()[_CHANNEL_FROM:]))]


def _reduce(call: Call) -> list[Axes]:
    axes = call.axes(0)
    given = call.integers("axes", 1)
    if not given and call.integer("noop_with_empty_axes", 0):
        return [axes]
    over = {axis % len(axes) for axis in given} if given else set(range(len(axes)))
    call.relations.lock(*(axes[place] for place in over))
    one = fixed((1,)) if call.integer("keepdims", 1) else ()
    result: Axes = ()
    for place, axis in enumerate(axes):
        result += one if place in over else (axis,)
    return [result]


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
