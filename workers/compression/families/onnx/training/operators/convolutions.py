"""Convolutions in one to three dimensions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

Pads = list[tuple[int, int]]
"""Before and after, for each spatial axis."""


def pads_of(call: Call, sizes: list[int], windows: list[int], strides: list[int]) -> Pads:
    """The padding of a sliding window, given or automatic; ``windows`` are the kernel's extents with dilation."""
    automatic = call.text("auto_pad", "NOTSET")
    if automatic in {"NOTSET", ""}:
        given = call.integers("pads") or [0] * (2 * len(sizes))
        return list(zip(given[: len(sizes)], given[len(sizes) :], strict=True))
    if automatic == "VALID":
        return [(0, 0)] * len(sizes)
    needed = [
        max((-(-size // stride) - 1) * stride + window - size, 0)
        for size, window, stride in zip(sizes, windows, strides, strict=True)
    ]
    return [_halves(total, automatic) for total in needed]


def _halves(total: int, automatic: str) -> tuple[int, int]:
    small, large = total // 2, total - total // 2
    return (small, large) if automatic == "SAME_UPPER" else (large, small)


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """``x`` with its spatial axes padded."""
    if not any(before or after for before, after in pads):
        return x
    return F.pad(x, [amount for pair in reversed(pads) for amount in pair], value=value)


def _convolution(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    sizes, kernel = list(x.shape[2:]), list(weight.shape[2:])
    ones = [1] * len(sizes)
    strides, dilations = call.integers("strides", ones) or ones, call.integers("dilations", ones) or ones
    windows = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    pads = pads_of(call, sizes, windows, strides)
    inside = all(before == after for before, after in pads)
    given = [before for before, _ in pads] if inside else [0] * len(pads)
    source = x if inside else padded(x, pads)
    return _CONVOLVE[len(sizes)](source, weight, bias, strides, given, dilations, call.integer("group", 1))


def _transposed_convolution(call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computed without padding, then cropped: torch's own padding is the same on both sides."""
    sizes, kernel = list(x.shape[2:]), list(weight.shape[2:])
    ones = [1] * len(sizes)
    strides, dilations = call.integers("strides", ones) or ones, call.integers("dilations", ones) or ones
    extra = call.integers("output_padding") or [0] * len(sizes)
    whole = _TRANSPOSED[len(sizes)](x, weight, None, strides, 0, 0, call.integer("group", 1), dilations)
    full = [
        (size - 1) * stride + (window - 1) * dilation + 1 + more
        for size, stride, window, dilation, more in zip(sizes, strides, kernel, dilations, extra, strict=True)
    ]
    pads = _transposed_pads(call, sizes, full, strides)
    whole = padded(whole, [(0, more) for more in extra])
    for axis, (before, after) in enumerate(pads):
        whole = whole.narrow(axis + 2, before, full[axis] - before - after)
    return whole if bias is None else whole + bias.reshape(-1, *ones)


def _transposed_pads(call: Call, sizes: list[int], full: list[int], strides: list[int]) -> Pads:
    wanted = call.integers("output_shape")
    automatic = call.text("auto_pad", "NOTSET")
    if wanted is None and automatic in {"NOTSET", "", "VALID"}:
        return pads_of(call, sizes, full, strides)
    if wanted is None:
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    wanted = wanted[-len(sizes) :]
    totals = [max(size - target, 0) for size, target in zip(full, wanted, strict=True)]
    return [_halves(total, "SAME_UPPER" if automatic == "SAME_UPPER" else "SAME_LOWER") for total in totals]


_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "LeakyRelu": lambda x, alpha=0.01: F.leaky_relu(x, alpha),
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: torch.clamp(alpha * x + beta, 0.0, 1.0),
}


def activated(call: Call, x: Tensor) -> Tensor:
    """``x`` after the activation that onnxruntime's fusions put into a layer."""
    return _ACTIVATIONS[call.text("activation", "")](x, *call.attributes.get("activation_params", []))


def limit_of_activation(call: Call) -> str | None:
    """Which activation of a fused layer is not served."""
    name = call.text("activation", "")
    return None if name in _ACTIVATIONS else f"its activation is {name or 'missing'}"


def _fused_convolution(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None = None, added: Tensor | None = None
) -> Tensor:
    made = _convolution(call, x, weight, bias)
    made = made if added is None else made + added
    return activated(call, made)


TABLE: Table = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "com.microsoft.FusedConv": _fused_convolution,
}

LIMITS: Limits = {"com.microsoft.FusedConv": limit_of_activation}
