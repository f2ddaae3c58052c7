"""Operators that work element by element, with numpy's broadcasting."""

import math
from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F  # noqa: N812  # the name that torch's own documentation uses

from workers.compression.families.onnx.training.operators.call import (
    DTYPES,
    Call,
    Function,
    Limits,
    Table,
    Tensor,
)


def _plain(function: Callable[..., Tensor]) -> Function:
    """A function of tensors alone."""

    def run(_: Call, *inputs: Tensor) -> Tensor:
        return function(*inputs)

    return run


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """A function of two tensors, over any number of them."""

    def run(_: Call, *inputs: Tensor) -> Tensor:
        return reduce(function, inputs)

    return run


def _divide(_: Call, left: Tensor, right: Tensor) -> Tensor:
    return left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")


def _power(_: Call, base: Tensor, exponent: Tensor) -> Tensor:
    if exponent.numel() == 1 and exponent.ndim <= base.ndim and base.is_floating_point():
        return torch.pow(base, float(exponent))  # a square is many times faster than a power by a tensor
    return torch.pow(base, exponent).to(base.dtype)


def _mean(_: Call, *inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def _modulo(call: Call, left: Tensor, right: Tensor) -> Tensor:
    return torch.fmod(left, right) if call.integer("fmod", 0) else torch.remainder(left, right)


def _leaky_relu(call: Call, x: Tensor) -> Tensor:
    return F.leaky_relu(x, call.real("alpha", 0.01))


def _elu(call: Call, x: Tensor) -> Tensor:
    return F.elu(x, call.real("alpha", 1.0))


def _celu(call: Call, x: Tensor) -> Tensor:
    return F.celu(x, call.real("alpha", 1.0))


def _selu(call: Call, x: Tensor) -> Tensor:
    alpha, gamma = call.real("alpha", 1.6732632423543772), call.real("gamma", 1.0507009873554805)
    return gamma * F.elu(x, alpha)


def _thresholded_relu(call: Call, x: Tensor) -> Tensor:
    return torch.where(x > call.real("alpha", 1.0), x, torch.zeros_like(x))


def _prelu(_: Call, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def _hard_sigmoid(call: Call, x: Tensor) -> Tensor:
    return torch.clamp(call.real("alpha", 0.2) * x + call.real("beta", 0.5), 0.0, 1.0)


def _swish(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(call.real("alpha", 1.0) * x)


def _quick_gelu(call: Call, x: Tensor) -> Tensor:
    return x * torch.sigmoid(call.real("alpha", 1.702) * x)


def _shrink(call: Call, x: Tensor) -> Tensor:
    bias, lambd = call.real("bias", 0.0), call.real("lambd", 0.5)
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))


def _gelu(call: Call, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=call.text("approximate", "none"))


def _bias_gelu(_: Call, x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


def _fast_gelu(_: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def _clip(call: Call, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if call.opset < 11:
        return torch.clamp(x, call.real("min", -math.inf), call.real("max", math.inf))
    if low is not None:
        x = torch.maximum(x, low.to(x))
    return x if high is None else torch.minimum(x, high.to(x))


def _cast(call: Call, x: Tensor) -> Tensor:
    return x.to(DTYPES[call.integer("to", 0)])


def _cast_like(_: Call, x: Tensor, target: Tensor) -> Tensor:
    return x.to(target.dtype)


def _dropout(call: Call, x: Tensor, ratio: Tensor | None = None, _mode: Tensor | None = None) -> tuple[Tensor, ...]:
    share = call.real("ratio", 0.5) if ratio is None else float(ratio)
    dropped = F.dropout(x, share, call.training)
    kept = dropped != 0 if call.training else torch.ones_like(x, dtype=torch.bool)
    return dropped, kept


def _is_infinite(call: Call, x: Tensor) -> Tensor:
    positive, negative = call.integer("detect_positive", 1), call.integer("detect_negative", 1)
    nothing = torch.zeros_like(x, dtype=torch.bool)
    return (torch.isposinf(x) if positive else nothing) | (torch.isneginf(x) if negative else nothing)


TABLE: Table = {
    "Abs": _plain(torch.abs),
    "Acos": _plain(torch.acos),
    "Acosh": _plain(torch.acosh),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "Asin": _plain(torch.asin),
    "Asinh": _plain(torch.asinh),
    "Atan": _plain(torch.atan),
    "Atanh": _plain(torch.atanh),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _plain(torch.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _plain(torch.cos),
    "Cosh": _plain(torch.cosh),
    "Div": _divide,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gelu": _gelu,
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "Identity": _plain(lambda x: x),
    "IsInf": _is_infinite,
    "IsNaN": _plain(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "Max": _folded(torch.maximum),
    "Mean": _mean,
    "Min": _folded(torch.minimum),
    "Mish": _plain(F.mish),
    "Mod": _modulo,
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _plain(torch.reciprocal),
    "Relu": _plain(torch.relu),
    "Round": _plain(torch.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Sinh": _plain(torch.sinh),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(torch.sub),
    "Sum": _folded(torch.add),
    "Swish": _swish,
    "Tan": _plain(torch.tan),
    "Tanh": _plain(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _plain(torch.where),
    "Xor": _plain(torch.logical_xor),
    "com.microsoft.BiasGelu": _bias_gelu,
    "com.microsoft.FastGelu": _fast_gelu,
    "com.microsoft.Gelu": _gelu,
    "com.microsoft.QuickGelu": _quick_gelu,
}


def _limit_of_cast(call: Call) -> str | None:
    return None if call.integer("to", 0) in DTYPES else "it makes text or numbers of few bits"


LIMITS: Limits = {"Cast": _limit_of_cast}
