"""The bits of a weight as buffers of an exported program, and the weight back out of them."""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from workers.compression.coding.packing import pack, unpack
from workers.compression.families.torch.pt2_notes import (
    CODEBOOK_SUFFIX,
    OFFSET_SUFFIX,
    SCALE_CODES_SUFFIX,
    SCALE_SUFFIX,
    SCALE_VALUES_SUFFIX,
    START_SUFFIX,
    ZERO_POINT_SUFFIX,
    Note,
    Tensors,
    plane_names,
    plane_widths,
)
from workers.compression.families.torch.storage import CodebookStorage, IntegerWeight, Quantized, ScaledFloats
from workers.compression.specs.errors import InvalidModel

SHIFTS_PREFIX: Final = "quantization_shifts"
_SUFFIXES: Final = (
    SCALE_SUFFIX,
    ZERO_POINT_SUFFIX,
    OFFSET_SUFFIX,
    CODEBOOK_SUFFIX,
    START_SUFFIX,
    SCALE_CODES_SUFFIX,
    SCALE_VALUES_SUFFIX,
)
Bytes = npt.NDArray[np.uint8]


def tensors_of(stored: Quantized, note: Note) -> dict[str, torch.Tensor]:
    """The buffers of one weight, by what they are called after its name."""
    if isinstance(stored, CodebookStorage):
        numbers, parameters = stored.codes, _codebook_parameters(stored)
    elif isinstance(stored, ScaledFloats):
        numbers, parameters = stored.numbers, {SCALE_SUFFIX: stored.scales.reshape(note.scale_shape)}
    else:
        found = {SCALE_SUFFIX: stored.scales, ZERO_POINT_SUFFIX: stored.zero_points, OFFSET_SUFFIX: stored.offsets}
        numbers = stored.integers
        parameters = {end: values.reshape(note.scale_shape) for end, values in found.items() if values is not None}
    planes = zip(plane_names("", note.bits), packed_planes(numbers, note), strict=True)
    return {**dict(planes), **parameters}


def _codebook_parameters(stored: CodebookStorage) -> dict[str, torch.Tensor]:
    books, entries = stored.codebooks.shape
    found = {CODEBOOK_SUFFIX: stored.codebooks.reshape(-1, 1)}
    if books > 1:
        book = torch.arange(len(stored.codes), dtype=torch.int32) // stored.rows
        found[START_SUFFIX] = (book * entries).to(torch.int32).reshape(-1, 1)
    if stored.scale_codes is not None and stored.scales is not None:
        found |= {SCALE_CODES_SUFFIX: stored.scale_codes, SCALE_VALUES_SUFFIX: stored.scales.reshape(-1, 1)}
    return found


def packed_planes(codes: torch.Tensor, note: Note) -> list[torch.Tensor]:
    """The bits of a matrix of integers or codes as buffers, those of one width each.

    A byte of a plane holds elements that lie far apart, so that unpacked they follow each other in whole runs.
    """
    padding = [(0, whole - size) for whole, size in zip(note.padded, codes.shape, strict=True)]
    if note.bits == 8:
        return [codes if not any(map(any, padding)) else torch.from_numpy(np.pad(codes.numpy(), padding))]
    rows = np.pad(codes.numpy().view(np.uint8), padding)
    rows = rows if note.by_row else rows.reshape(1, -1)
    rows = np.pad(rows, [(0, 0), (0, -rows.shape[1] % 8)])
    found, shift = [], 0
    for width in plane_widths(note.bits):
        plane = (rows >> shift) & ((1 << width) - 1)
        runs = plane.reshape(len(rows), 8 // width, -1).transpose(0, 2, 1)
        packed = pack(runs.astype(np.uint8), width).reshape(len(rows), -1)
        found.append(torch.from_numpy(packed if note.by_row else packed[0]))
        shift += width
    return [*found[:-1], found[-1].view(torch.int8) if note.signed else found[-1]]


def _unpacked_planes(planes: Iterable[torch.Tensor], note: Note) -> torch.Tensor:
    """What ``packed_planes`` packed."""
    height, width = note.matrix_shape
    if note.bits == 8:
        return next(iter(planes))[:height, :width]
    rows: Bytes = np.zeros((1, 1), np.uint8)
    shift = 0
    for bits, plane in zip(plane_widths(note.bits), planes, strict=True):
        packed = plane.numpy().view(np.uint8).reshape(note.padded[0] if note.by_row else 1, -1)
        runs = unpack(packed.reshape(-1), bits, packed.size * (8 // bits)).reshape(len(packed), -1, 8 // bits)
        rows = rows | (runs.transpose(0, 2, 1).reshape(len(packed), -1) << shift).astype(np.uint8)
        shift += bits
    if note.signed:
        sign = np.uint8(1 << (note.bits - 1))
        rows = (rows ^ sign) - sign
    across = note.padded[1]
    whole = rows[:, :across] if note.by_row else rows[0, : note.padded[0] * across].reshape(-1, across)
    matrix = np.ascontiguousarray(whole[:height, :width])
    return torch.from_numpy(matrix.view(np.int8) if note.signed else matrix)


def buffers_of(name: str, note: Note, tensors: Tensors) -> list[str]:
    """The names of all buffers of one weight that there are."""
    return [other for other in (*plane_names(name, note.bits), *(name + end for end in _SUFFIXES)) if other in tensors]


def read_back(name: str, note: Note, tensors: Tensors) -> Quantized:
    """A weight as it was before it was put into buffers; raises ``InvalidModel`` for codes without an entry."""
    planes = [tensors[plane] for plane in plane_names(name, note.bits)]
    if note.kind == "codes":
        books = tensors[name + CODEBOOK_SUFFIX].reshape(note.counts[0], -1)
        codes = _unpacked_planes(planes, note)
        if int(codes.max()) >= books.shape[1]:
            raise InvalidModel(f"Codes of {name[:200]!r} lie beyond its codebooks.", reason="pt2_weights")
        scale_codes, scales = (tensors.get(name + suffix) for suffix in (SCALE_CODES_SUFFIX, SCALE_VALUES_SUFFIX))
        if scale_codes is None or scales is None:
            return CodebookStorage(codes, books, note.bits, note.lengths[0], note.place)
        if int(scale_codes.max()) >= len(scales):
            raise InvalidModel(f"Codes of {name[:200]!r} lie beyond its scales.", reason="pt2_weights")
        return CodebookStorage(codes, books, note.bits, note.lengths[0], note.place, scale_codes, scales.reshape(-1))
    scales = tensors[name + SCALE_SUFFIX].reshape(note.counts)
    if note.kind == "floats":
        return ScaledFloats(planes[0], scales, note.place)
    zero, offset = (
        tensors[name + suffix].reshape(note.counts) if name + suffix in tensors else None
        for suffix in (ZERO_POINT_SUFFIX, OFFSET_SUFFIX)
    )
    integers = _unpacked_planes(planes, note)
    return IntegerWeight(integers, scales, note.bits, note.lengths, note.place, zero, offset)
