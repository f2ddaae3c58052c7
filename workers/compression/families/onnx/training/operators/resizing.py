"""Changes of resolution, one axis after the other."""

import torch

from workers.compression.families.onnx.training.operators.call import Call, Limits, Table, Tensor


def _resize(
    call: Call,
    x: Tensor,
    second: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    if call.opset < 11 and scales is None:
        scales = second
    axes = call.integers("axes") or list(range(x.ndim))
    by_size = sizes is not None and sizes.numel() > 0
    wanted = _numbers(sizes) if by_size else _scales(call, scales)
    for axis, amount in zip(axes, wanted, strict=True):
        size = x.shape[axis]
        target = int(amount) if by_size else int(size * amount)
        scale = target / size if by_size else amount
        if target != size or scale != 1.0:
            x = _resized(call, x, axis % x.ndim, target, scale)
    return x


def _scales(call: Call, scales: Tensor | None) -> list[float]:
    return [float(scale) for scale in call.attributes.get("scales", [])] if scales is None else _numbers(scales)


def _numbers(tensor: Tensor | None) -> list[float]:
    return [] if tensor is None else [float(value) for value in tensor.tolist()]


def _resized(call: Call, x: Tensor, axis: int, target: int, scale: float) -> Tensor:
    size = x.shape[axis]
    at = _coordinates(call, size, target, scale)
    if call.text("mode", "nearest") == "nearest":
        return x.index_select(axis, _nearest(call, at).clamp(0, size - 1).long().to(x.device))
    at = at.clamp(0, size - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=size - 1)
    share = (at - low).to(x).reshape(-1, *[1] * (x.ndim - axis - 1))
    return torch.lerp(x.index_select(axis, low.to(x.device)), x.index_select(axis, high.to(x.device)), share)


def _coordinates(call: Call, size: int, target: int, scale: float) -> Tensor:
    """Where each of the ``target`` elements lies among the ``size`` old ones."""
    default = "half_pixel" if call.opset >= 11 else "asymmetric"
    mode = call.text("coordinate_transformation_mode", default)
    at = torch.arange(target, dtype=torch.float32)
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * ((size - 1) / (target - 1)) if target > 1 else torch.zeros(target)
    if mode == "pytorch_half_pixel" and target == 1:
        return torch.zeros(target)
    if mode == "half_pixel_symmetric":
        exact = size * scale
        center = size / 2
        return center * (1 - target / exact) + (at + 0.5) / scale - 0.5
    return (at + 0.5) / scale - 0.5


def _nearest(call: Call, at: Tensor) -> Tensor:
    mode = call.text("nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor")
    if mode == "floor":
        return at.floor()
    if mode == "ceil":
        return at.ceil()
    return (at - 0.5).ceil() if mode == "round_prefer_floor" else (at + 0.5).floor()


def _upsample(call: Call, x: Tensor, scales: Tensor | None = None) -> Tensor:
    return _resize(call, x, None, scales)


TABLE: Table = {"Resize": _resize, "Upsample": _upsample}


def _limit(call: Call) -> str | None:
    mode = call.text("mode", "nearest")
    if mode not in {"nearest", "linear"}:
        return f"its mode is {mode}"
    if call.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "it crops"
    if call.integer("antialias", 0) or call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "it smooths or keeps the aspect ratio"
    return None


LIMITS: Limits = {"Resize": _limit, "Upsample": _limit}
