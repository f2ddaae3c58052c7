"""What operators relate that compute element by element, or channel by channel."""

from workers.compression.families.torch.structure.call import Call, Rule
from workers.compression.structure.network import CHANNEL_FROM, Unrelated
from workers.compression.structure.relations import Axes, fixed


def alone(call: Call) -> list[Axes]:
    """The first tensor in another form, or others of its shape."""
    return [call.axes()]


def together(call: Call) -> list[Axes]:
    """All tensors element by element."""
    return [call.network.broadcast(call.operands())]


def _slopes(call: Call) -> list[Axes]:
    axes, slopes = call.axes("self"), call.axes("weight")
    return [call.network.by_channel(axes, [slopes] if len(slopes[0]) > 1 else [])]


def _by_channel(call: Call) -> list[Axes]:
    return [call.network.by_channel(call.axes("input"), call.optional("weight", "bias", "running_mean", "running_var"))]


def _instance_norm(call: Call) -> list[Axes]:
    call.network.lock(*call.axes("input")[CHANNEL_FROM:])
    return _by_channel(call)


def _layer_norm(call: Call) -> list[Axes]:
    axes = call.axes("input")
    over = axes[len(axes) - len(call.argument("normalized_shape")) :]
    return [call.network.normalized(axes, over, call.optional("weight", "bias"))]


def _along(call: Call) -> list[Axes]:
    """Looks at one axis as a whole: a softmax, a running sum."""
    axes = call.axes("self")
    place = call.place(axes)
    return [call.network.normalized(axes, axes[place : place + 1])]


def _resize(call: Call) -> list[Axes]:
    return [call.network.resized(call.axes(), call.shape())]


def _reduce(call: Call) -> list[Axes]:
    axes = call.axes("self")
    over = call.integers("dim") if call.has("dim") else []
    keep = call.has("keepdim") and bool(call.argument("keepdim"))
    return [call.network.reduced(axes, over or range(len(axes)), keep=keep)] * len(call.reading.shapes[call.node])


def _gated(call: Call) -> list[Axes]:
    """The first half times what the second one makes of it."""
    axes = call.axes("self")
    place = call.place(axes)
    if len(axes[place]) % 2:
        raise Unrelated
    first, second = call.network.split(axes, place, [len(axes[place]) // 2] * 2)
    return [call.network.broadcast([first, second])]


def _checked(call: Call) -> list[Axes]:
    """Demands something of a tensor's type."""
    if call.has("size") or call.has("stride"):
        raise Unrelated
    return []


def _new(call: Call) -> list[Axes]:
    """A tensor of the same type."""
    return [fixed(call.shape())]


_ALONE = """_to_copy to type_as clone alias detach detach_ contiguous lift_fresh_copy dropout native_dropout
    feature_dropout alpha_dropout hardswish log_sigmoid fake_quantize_per_tensor_affine
    zeros_like ones_like full_like empty_like rand_like randn_like"""
_TOGETHER = "__and__ __or__ __xor__ floor_divide expand_as masked_fill"
_ALONG = "softmax _softmax log_softmax _log_softmax cumsum cumprod logcumsumexp"
_REDUCTIONS = """mean sum prod amax amin max min var std any all norm linalg_vector_norm logsumexp argmax argmin median
    var_mean"""
_RESIZING = "max_pool avg_pool adaptive_avg_pool _adaptive_avg_pool adaptive_max_pool upsample_nearest lp_pool"
_RANKS = ("1d", "2d", "3d")

ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(_ALONE.split(), alone),
    **dict.fromkeys(_TOGETHER.split(), together),
    **dict.fromkeys(_ALONG.split(), _along),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **{f"{name}{rank}": _resize for name in _RESIZING.split() for rank in _RANKS},
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _resize),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), _resize),
    **dict.fromkeys(("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training"), _by_channel),
    "instance_norm": _instance_norm,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), _layer_norm),
    "prelu": _slopes,
    "glu": _gated,
    "_assert_tensor_metadata": _checked,
    **dict.fromkeys(("new_ones", "new_zeros", "new_full", "new_empty"), _new),
}
