"""Quantized weights out of a folder in the layout of compressed-tensors, ours or anyone's.

Targets of a group may be regular expressions. None is run: which group a weight belongs to shows in its tensors, and
where those fit several groups that differ, its name has to be among the targets.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch

from workers.compression.coding.packing import unpack_words
from workers.compression.families.tensors.stored import StoredTensor
from workers.compression.families.torch.compressed_tensors_layout import (
    PACKED_SUFFIX,
    SCALE_SUFFIX,
    SHAPE_SUFFIX,
    ZERO_POINT_SUFFIX,
    LayoutWeight,
    packed_words,
)
from workers.compression.families.torch.compressed_tensors_scheme import PACKED, Scheme, schemes_of
from workers.compression.families.torch.storage import IntegerWeight, Place, ScaledFloats
from workers.compression.specs.errors import InvalidModel, UnsupportedFormat

_REORDERED: Final = ".weight_g_idx"
_SCALE_TYPES: Final = (torch.float16, torch.bfloat16, torch.float32)
_SUFFIXES: Final = ("", PACKED_SUFFIX, SCALE_SUFFIX, SHAPE_SUFFIX, ZERO_POINT_SUFFIX)
_STORED_TYPES: Final = {torch.int8: "int", torch.float8_e4m3fn: "float"}

Groups = list[tuple[Scheme, frozenset[str]]]


def split(tensors: Mapping[str, StoredTensor], config: Any) -> tuple[dict[str, StoredTensor], dict[str, LayoutWeight]]:
    """Separates the quantized weights from all other tensors.

    Args:
        tensors: All tensors of the folder.
        config: ``quantization_config`` of its ``config.json``, if any.

    Raises:
        UnsupportedFormat: The weights are quantized in another layout.
        InvalidModel: Parts of a weight do not fit each other or what the configuration says.
    """
    if config is None:
        return dict(tensors), {}
    groups = schemes_of(config)
    if any(name.endswith(_REORDERED) for name in tensors):
        raise UnsupportedFormat("Weights whose columns were reordered are not served.", reason="hf_quantization")
    quantized: dict[str, LayoutWeight] = {}
    used: set[str] = set()
    for scale in [name for name in tensors if name.endswith(SCALE_SUFFIX)]:
        name = scale.removesuffix(SCALE_SUFFIX)
        parts = {suffix: tensors[name + suffix] for suffix in _SUFFIXES if name + suffix in tensors}
        if "" in parts or PACKED_SUFFIX in parts:
            quantized[name] = _Parts(name, parts).weight(groups)
            used |= {name + suffix for suffix in parts}
    return {name: tensor for name, tensor in tensors.items() if name not in used}, quantized


class _Parts:
    """The tensors of one weight, held against each other before any is used."""

    def __init__(self, name: str, tensors: dict[str, StoredTensor]) -> None:
        self.name = name
        self.scale = tensors[SCALE_SUFFIX]
        self.zero_point = tensors.get(ZERO_POINT_SUFFIX)
        self.packed = tensors.get(PACKED_SUFFIX)
        self.values = self.packed or tensors[""]
        self.shape = self._matrix_shape(tensors.get(SHAPE_SUFFIX))
        self._check(self.scale.dtype in _SCALE_TYPES)

    def _check(self, fits: bool) -> None:
        if not fits:
            raise InvalidModel(
                f"The parts of the quantized weight {self.name[:200]!r} do not fit each other or the configuration.",
                reason="hf_weights",
            )

    def _matrix_shape(self, shape: StoredTensor | None) -> tuple[int, int]:
        self._check(len(self.values.shape) == 2 and self.values.elements > 0)
        if self.packed is None:
            self._check(self.values.dtype in _STORED_TYPES)
            return self.values.shape[0], self.values.shape[1]
        self._check(shape is not None and shape.shape == (2,) and shape.dtype in (torch.int32, torch.int64))
        rows, columns = shape.load().tolist() if shape is not None else (0, 0)
        # Two bits are the fewest: so words bound what they unpack to.
        widest = self.packed.shape[1] * 16
        self._check(self.packed.dtype == torch.int32 and rows == self.packed.shape[0] and 0 < columns <= widest)
        return rows, columns

    def weight(self, groups: Groups) -> LayoutWeight:
        """The weight as the one group says that it fits."""
        owner = self.name.removesuffix(".weight")
        named = [scheme for scheme, targets in groups if owner in targets]
        fitting = list(dict.fromkeys(scheme for scheme in named or (s for s, _ in groups) if self._fits(scheme)))
        readings = {(scheme.bits, self._lengths(scheme), scheme.symmetric) for scheme in fitting}
        self._check(len(readings) == 1)
        scheme = fitting[0]
        lengths = self._lengths(scheme)
        counts = _counts(self.shape, lengths)
        scales = self.scale.load().reshape(counts)
        place = Place.plain(*self.shape, self.scale.dtype)
        if scheme.kind == "float":
            return ScaledFloats(self.values.load(), scales, place)
        return IntegerWeight(self._integers(scheme), scales, scheme.bits, lengths, place, self._zeros(scheme, counts))

    def _lengths(self, scheme: Scheme) -> tuple[int, int]:
        return scheme.block_lengths(*self.shape)

    def _fits(self, scheme: Scheme) -> bool:
        counts = _counts(self.shape, self._lengths(scheme))
        scale_shapes = ((1,), (1, 1)) if scheme.strategy == "tensor" else (counts,)
        if self.scale.shape not in scale_shapes or (scheme.kind == "float" and scheme.strategy in ("group", "block")):
            return False
        if self.packed is None:
            stored = scheme.format != PACKED and _STORED_TYPES[self.values.dtype] == scheme.kind
        else:
            stored = scheme.format == PACKED and self.packed.shape[1] == packed_words(self.shape[1], scheme.bits)
        return stored and (scheme.symmetric or self._zero_points_fit(scheme, counts))

    def _zero_points_fit(self, scheme: Scheme, counts: tuple[int, int]) -> bool:
        found = self.zero_point
        if found is None or scheme.kind == "float":
            return False
        if scheme.packs_zero_points:
            return found.dtype == torch.int32 and found.shape == (packed_words(counts[0], scheme.bits), counts[1])
        return found.dtype == torch.int8 and found.shape == self.scale.shape

    def _integers(self, scheme: Scheme) -> torch.Tensor:
        if self.packed is None:
            integers, half = self.values.load(), 1 << (scheme.bits - 1)
            self._check(-half <= int(integers.min()) and int(integers.max()) < half)
            return integers
        return _unpacked(self.packed.load(), scheme.bits, self.shape[1])

    def _zeros(self, scheme: Scheme, counts: tuple[int, int]) -> torch.Tensor | None:
        """Zero points of an affine scheme; beside a symmetric one transformers would not read them either."""
        if scheme.symmetric or self.zero_point is None:
            return None
        found = self.zero_point.load()
        if not scheme.packs_zero_points:
            return found.reshape(counts)
        return _unpacked(found.t().contiguous(), scheme.bits, counts[0]).t().contiguous()


def _counts(shape: tuple[int, int], lengths: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // lengths[0]), -(-shape[1] // lengths[1])


def _unpacked(words: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    codes = unpack_words(words.numpy(), bits, columns)
    return torch.from_numpy((codes.astype(np.int16) - (1 << (bits - 1))).astype(np.int8))
