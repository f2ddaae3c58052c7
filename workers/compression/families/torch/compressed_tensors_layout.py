"""The on-disk layout of int8 weights that stock transformers opens through the compressed-tensors package.

Format ``int-quantized``, weights only: ``<layer>.weight`` holds int8, ``<layer>.weight_scale`` (and, where zero is
not stored as 0, ``<layer>.weight_zero_point``) broadcast against it.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch

from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.families.torch.storage import Int8Weight
from workers.compression.specs.errors import InvalidModel, UnsupportedFormat

CONFIG_KEY: Final = "quantization_config"
_FORMAT: Final = "int-quantized"
_SCALE: Final = "_scale"
_ZERO_POINT: Final = "_zero_point"


def quantization_config(weights: Mapping[str, Int8Weight]) -> dict[str, Any]:
    """What ``config.json`` says about these weights; each layer is named, so nothing else is touched on loading."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for name, weight in weights.items():
        strategy = "channel" if weight.scales.numel() > 1 else "tensor"
        groups.setdefault((strategy, weight.zero_points is None), []).append(name.removesuffix(".weight"))
    return {
        "quant_method": "compressed-tensors",
        "format": _FORMAT,
        "quantization_status": "compressed",
        "ignore": [],
        "config_groups": {
            f"group_{number}": _group(targets, strategy, symmetric)
            for number, ((strategy, symmetric), targets) in enumerate(groups.items())
        },
    }


def _group(targets: list[str], strategy: str, symmetric: bool) -> dict[str, Any]:
    arguments = {"num_bits": 8, "type": "int", "symmetric": symmetric, "strategy": strategy, "dynamic": False}
    return {"targets": targets, "weights": arguments, "input_activations": None, "format": _FORMAT}


def entries(name: str, weight: Int8Weight) -> dict[str, StoredTensor]:
    """The stored tensors of one weight."""
    found = {name: StoredTensor.of(weight.integers), name + _SCALE: StoredTensor.of(weight.scales)}
    if weight.zero_points is not None:
        found[name + _ZERO_POINT] = StoredTensor.of(weight.zero_points)
    return found


def split(tensors: Mapping[str, StoredTensor], config: Any) -> tuple[dict[str, StoredTensor], dict[str, Int8Weight]]:
    """Separates the quantized weights from all other tensors.

    Raises:
        UnsupportedFormat: The weights are quantized in another layout.
        InvalidModel: Scales or zero points do not fit their weight.
    """
    if config is None:
        return dict(tensors), {}
    if not isinstance(config, dict) or config.get("quant_method") != "compressed-tensors":
        raise UnsupportedFormat(
            "The weights are quantized in a layout that is not served.",
            reason="hf_quantization",
            hint="Upload the model before it was quantized.",
        )
    if config.get("format") != _FORMAT or not _weights_only(config.get("config_groups")):
        raise UnsupportedFormat(
            f"Of the compressed-tensors layouts only {_FORMAT} with 8-bit weights alone is served.",
            reason="hf_quantization",
            hint="Upload the model before it was quantized.",
        )
    quantized = {
        name: _int8_weight(name, tensors)
        for name, tensor in tensors.items()
        if tensor.dtype == torch.int8 and name + _SCALE in tensors
    }
    used = {name + suffix for name in quantized for suffix in ("", _SCALE, _ZERO_POINT)}
    return {name: tensor for name, tensor in tensors.items() if name not in used}, quantized


def _weights_only(groups: Any) -> bool:
    return (
        isinstance(groups, dict)
        and all(isinstance(group, dict) for group in groups.values())
        and all(not group.get("input_activations") and not group.get("output_activations") for group in groups.values())
        and all(isinstance(group.get("weights"), dict) for group in groups.values())
        and all(group["weights"].get("num_bits") == 8 for group in groups.values())
    )


def _int8_weight(name: str, tensors: Mapping[str, StoredTensor]) -> Int8Weight:
    integers, scales = tensors[name].load(), tensors[name + _SCALE].load()
    zero_points = tensors[name + _ZERO_POINT].load() if name + _ZERO_POINT in tensors else None
    fitting = scales.shape in ((1,), (integers.shape[0], 1)) and scales.is_floating_point() and integers.dim() == 2
    if not fitting or (zero_points is not None and zero_points.shape != scales.shape):
        raise InvalidModel(f"The scales of {name[:200]} do not fit its integers.", reason="hf_weights")
    return Int8Weight(integers, scales, zero_points)
