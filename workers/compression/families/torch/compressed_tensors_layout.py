"""The on-disk layout of quantized weights that stock transformers opens through the compressed-tensors package.

``pack-quantized``
    ``<layer>.weight_packed`` holds 2- to 7-bit integers in words of 32 bits, ``weight_shape`` what shape they unpack
    to, ``weight_scale`` and ``weight_zero_point`` one number per tensor, channel, group or block.
``int-quantized`` and ``float-quantized``
    ``<layer>.weight`` holds int8 or float8, the rest as above.

transformers 5.23 with compressed-tensors 0.20 loads packed integers in two ways, each of which has a gap (measured):
restored on the first call, packed zero points have the wrong shape and a packed table has no weight to initialize;
restored while loading (``dequantize``), all layers must be quantized alike. So a model whose layers are alike is marked
for the second way where it needs it; in others, affine groups are called blocks of one row, whose zero points are not
packed, and the integers of tables take a byte each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from workers.compression.coding.packing import pack_words
from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.families.torch.compressed_tensors_scheme import FLOATS, INTEGERS, PACKED, Scheme, group_of
from workers.compression.families.torch.storage import IntegerWeight, ScaledFloats

CONFIG_KEY: Final = "quantization_config"
PACKED_SUFFIX: Final = "_packed"
SCALE_SUFFIX: Final = "_scale"
SHAPE_SUFFIX: Final = "_shape"
ZERO_POINT_SUFFIX: Final = "_zero_point"
_WORD_BITS: Final = 32

LayoutWeight = IntegerWeight | ScaledFloats
"""What the layout has a place for."""


@dataclass(frozen=True)
class Layout:
    """All quantized weights of a model as they are written.

    Args:
        schemes: How each is described, by the weight's name.
        restored_on_load: Whether transformers has to restore the weights while it loads them.
    """

    schemes: dict[str, Scheme]
    restored_on_load: bool

    def config(self) -> dict[str, Any]:
        """The entry ``quantization_config`` of ``config.json``."""
        groups: dict[Scheme, list[str]] = {}
        for name, scheme in self.schemes.items():
            groups.setdefault(scheme, []).append(name.removesuffix(".weight"))
        formats = {scheme.format for scheme in groups}
        found = {
            "quant_method": "compressed-tensors",
            "format": formats.pop() if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "ignore": [],
            "config_groups": {
                f"group_{number}": group_of(scheme, targets) for number, (scheme, targets) in enumerate(groups.items())
            },
        }
        return {**found, "dequantize": True} if self.restored_on_load else found


def layout_of(weights: Mapping[str, LayoutWeight], tables: frozenset[str]) -> Layout:
    """How to write the quantized weights of one model.

    Args:
        weights: By parameter name.
        tables: Those of them that rows are looked up in.
    """
    schemes = {name: _scheme(weight) for name, weight in weights.items()}
    if len(set(schemes.values())) > 1 or any(_breaks_when_packed(weights[name], schemes[name]) for name in weights):
        schemes = {name: _with_plain_zero_points(scheme, weights[name]) for name, scheme in schemes.items()}
    packed = {name for name, scheme in schemes.items() if scheme.format == PACKED}
    alike = len(set(schemes.values())) == 1
    if not alike:
        for name in packed & tables:
            schemes[name] = replace(_scheme(weights[name]), format=INTEGERS)
    needs_loading = packed & tables or any(scheme.packs_zero_points for scheme in schemes.values())
    return Layout(schemes, restored_on_load=alike and bool(needs_loading))


def _scheme(weight: LayoutWeight) -> Scheme:
    if isinstance(weight, ScaledFloats):
        return Scheme("float", 8, True, "channel" if weight.scales.numel() > 1 else "tensor", None, FLOATS)
    symmetric, stored = weight.zero_points is None, PACKED if weight.bits < 8 else INTEGERS
    columns = weight.matrix_shape[1]
    if weight.scales.numel() == 1:
        return Scheme("int", weight.bits, symmetric, "tensor", None, stored)
    if weight.lengths == (1, columns):
        return Scheme("int", weight.bits, symmetric, "channel", None, stored)
    whole = weight.lengths[0] == 1 and columns % weight.lengths[1] == 0
    return Scheme("int", weight.bits, symmetric, "group" if whole else "block", weight.lengths, stored)


def _with_plain_zero_points(scheme: Scheme, weight: LayoutWeight) -> Scheme:
    if not scheme.packs_zero_points or isinstance(weight, ScaledFloats):
        return scheme
    return replace(scheme, strategy="block", lengths=weight.lengths)


def _breaks_when_packed(weight: LayoutWeight, scheme: Scheme) -> bool:
    """Zero points of groups that fit one word are a view that compressed-tensors 0.20 cannot take as bytes."""
    rows = weight.matrix_shape[0]
    return scheme.packs_zero_points and scheme.strategy == "group" and rows * scheme.bits <= _WORD_BITS


def entries(name: str, weight: LayoutWeight, scheme: Scheme) -> dict[str, StoredTensor]:
    """The stored tensors of one weight, packed when they are asked for."""
    scales = weight.scales.reshape(1) if scheme.strategy == "tensor" else weight.scales
    found = {name + SCALE_SUFFIX: StoredTensor.of(scales)}
    if isinstance(weight, ScaledFloats):
        return {name: StoredTensor.of(weight.numbers), **found}
    if weight.zero_points is not None:
        found[name + ZERO_POINT_SUFFIX] = _stored_zero_points(weight.zero_points, scheme)
    if scheme.format != PACKED:
        return {name: StoredTensor.of(weight.integers), **found}
    found[name + SHAPE_SUFFIX] = StoredTensor.of(torch.tensor(weight.matrix_shape))
    return {name + PACKED_SUFFIX: _packed(weight.integers, scheme.bits), **found}


def _stored_zero_points(zero_points: torch.Tensor, scheme: Scheme) -> StoredTensor:
    if scheme.packs_zero_points:
        columns = _words(zero_points.t().contiguous(), scheme.bits)
        # A single column would pass for contiguous whatever its strides.
        return StoredTensor.of(columns.t().clone(memory_format=torch.contiguous_format))
    return StoredTensor.of(zero_points.reshape(1) if scheme.strategy == "tensor" else zero_points)


def _packed(integers: torch.Tensor, bits: int) -> StoredTensor:
    rows, columns = integers.shape
    shape = (rows, packed_words(columns, bits))
    return StoredTensor(torch.int32, shape, lambda: _words(integers, bits))


def packed_words(columns: int, bits: int) -> int:
    """Words that a row takes."""
    return -(-columns * bits // _WORD_BITS)


def _words(integers: torch.Tensor, bits: int) -> torch.Tensor:
    codes = (integers.numpy().astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    return torch.from_numpy(pack_words(codes, bits))
