"""Storing a weight of an exported program in fewer bits, with operators of aten that restore it.

Nothing but torch is needed to open the result. What is restored is as little as possible: rows of a table after they
were looked up, and scales of a linear layer on its output, so that the weight itself is only unpacked and cast.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram

from workers.compression.families.torch.pt2_buffers import SHIFTS_PREFIX
from workers.compression.families.torch.pt2_editing import Editor, add_buffer, insert_call
from workers.compression.families.torch.pt2_notes import (
    CODEBOOK_SUFFIX,
    OFFSET_SUFFIX,
    SCALE_CODES_SUFFIX,
    SCALE_SUFFIX,
    SCALE_VALUES_SUFFIX,
    START_SUFFIX,
    ZERO_POINT_SUFFIX,
    Note,
    plane_names,
    plane_widths,
)
from workers.compression.families.torch.pt2_program import operator_name

_ATEN = torch.ops.aten
Node = torch.fx.Node


def is_looked_up(node: Node) -> bool:
    """Whether some operator reads rows of a stored tensor."""
    return any(operator_name(user) == "embedding" and user.args[0] is node for user in node.users)


def store_quantized(program: ExportedProgram, name: str, note: Note, tensors: Mapping[str, torch.Tensor]) -> None:
    """Replaces the float weight ``name`` by buffers and the operators that restore it.

    Args:
        note: What the buffers mean.
        tensors: As ``pt2_buffers.tensors_of`` has them.
    """
    editor = Editor(program, name)
    buffers = _Buffers(editor, name, note, tensors)
    for user in editor.users():
        if editor.looks_up(user):
            editor.replace(user, _Restoring(buffers, user, user.args[1]).rows())
        elif buffers.only_scaled and operator_name(user) == "linear" and user.args[1] is editor.weight:
            editor.replace(user, _scaled_linear(buffers, user))
        else:
            user.replace_input_with(editor.weight, _Restoring(buffers, user).weight())
    editor.finish()


class _Buffers:
    """The stored tensors of one weight as nodes of the graph."""

    def __init__(self, editor: Editor, name: str, note: Note, tensors: Mapping[str, torch.Tensor]) -> None:
        self.editor = editor
        self.note = note
        nodes = {suffix: editor.add_stored(name + suffix, values) for suffix, values in tensors.items()}
        self.planes = [nodes.pop(plane) for plane in plane_names("", note.bits)]
        self._parameters = nodes

    def parameter(self, suffix: str) -> Node | None:
        """A parameter, if the weight has it."""
        return self._parameters.get(suffix)

    @property
    def scales(self) -> Node:
        """Of integers and floats."""
        return self._parameters[SCALE_SUFFIX]

    @property
    def only_scaled(self) -> bool:
        """Whether the weight is a matrix of integers with one scale per row and nothing else."""
        plain = self.note.kind == "integers" and set(self._parameters) == {SCALE_SUFFIX}
        per_row = self.note.counts[1] == 1 and self.note.counts[0] in (1, self.note.matrix_shape[0])
        return plain and per_row and self.note.place.order == (0, 1)

    def shifts(self, width: int, *, left: bool) -> Node:
        """A constant that all weights share: how far the parts of a byte are from its top or its bottom."""
        side = "left" if left else "right"
        steps = range(8 - width, -1, -width) if left else range(0, 8, width)
        values = torch.tensor(list(steps), dtype=torch.int8 if left else torch.uint8).reshape(-1, 1)
        return add_buffer(self.editor.program, f"{SHIFTS_PREFIX}_{side}{width}", values)


class _Restoring:
    """The operators in front of one reader.

    Args:
        buffers: What is stored.
        user: The reader.
        indices: The rows that it looks up; None where it reads the whole weight.
    """

    def __init__(self, buffers: _Buffers, user: Node, indices: Any = None) -> None:
        self._buffers = buffers
        self._note = buffers.note
        self._user = user
        self._indices = self._all_rows() if indices is None and buffers.note.by_row else indices

    def _all_rows(self) -> Node:
        rows, options = self._buffers.note.matrix_shape[0], {"dtype": torch.int64, "device": torch.device("cpu")}
        return insert_call(self._user, _ATEN.arange.default, rows, **options)

    def _call(self, operator: Any, *arguments: Any) -> Node:
        return insert_call(self._user, operator, *arguments)

    def _cast(self, node: Node, dtype: torch.dtype) -> Node:
        return self._buffers.editor.cast(self._user, node, dtype)

    def rows(self) -> Node:
        """The looked-up rows."""
        return self._cast(self._values(), self._note.place.dtype)

    def weight(self) -> Node:
        """The whole weight as the reader wants it."""
        matrix, place = self._cast(self._values(), self._note.place.dtype), self._note.place
        if place.shape != self._note.matrix_shape or place.order != tuple(range(len(place.order))):
            matrix = self._call(_ATEN.view.default, matrix, list(place.permuted))
        if place.order != tuple(range(len(place.order))):
            matrix = self._call(_ATEN.permute.default, matrix, list(place.axes))
        return matrix

    def integers(self) -> Node:
        """The matrix of integers without scales."""
        return self._cut(self._numbers())

    def _values(self) -> Node:
        numbers, (_, across) = self._numbers(), self._note.counts
        if self._note.kind == "codes":
            return self._looked_up_values(numbers)
        # Narrower integers do not overflow when zero points are taken off, and a product with scales is of their type.
        wide = self._note.bits == 8 and self._buffers.parameter(ZERO_POINT_SUFFIX) is not None
        if self._note.kind == "floats" or wide:
            numbers = self._cast(numbers, self._buffers.scales.meta["val"].dtype)
        spread = across > 1 or (not self._note.by_row and self._note.counts[0] not in (1, self._note.matrix_shape[0]))
        return self._cut(self._in_blocks(numbers) if spread else self._scaled(numbers))

    def _numbers(self) -> Node:
        """Integers, codes or floats: the rows that were looked up, or the matrix filled up to whole blocks."""
        planes = [self._looked_up(plane) for plane in self._buffers.planes]
        if self._note.bits == 8:
            return planes[0]
        widths, found, shift = plane_widths(self._note.bits), None, 0
        for index, (width, plane) in enumerate(zip(widths, planes, strict=True)):
            top = index == len(widths) - 1
            part = self._unpacked(plane, width, signed=top and self._note.signed)
            if shift:
                part = self._call(_ATEN.bitwise_left_shift.Tensor_Scalar, part, shift)
            found = part if found is None else self._call(_ATEN.bitwise_or.Tensor, found, part)
            shift += width
        if found is None:
            raise ValueError("a weight of no bits")
        return self._shaped(found)

    def _unpacked(self, plane: Node, width: int, *, signed: bool) -> Node:
        if self._note.by_row:
            plane = self._call(_ATEN.unsqueeze.default, plane, -2)
        shifts = self._buffers.shifts(width, left=signed)
        if signed:
            parts = self._call(_ATEN.bitwise_left_shift.Tensor, plane, shifts)
            parts = self._call(_ATEN.bitwise_right_shift.Tensor_Scalar, parts, 8 - width)
        else:
            parts = self._call(_ATEN.bitwise_right_shift.Tensor, plane, shifts)
            parts = self._call(_ATEN.bitwise_and.Scalar, parts, (1 << width) - 1)
        return self._call(_ATEN.flatten.using_ints, parts, -2, -1)

    def _shaped(self, codes: Node) -> Node:
        """Unpacked runs without what filled the last byte, as rows."""
        rows, columns = self._note.padded
        length = codes.meta["val"].shape[-1]
        wanted = columns if self._note.by_row else rows * columns
        if length != wanted:
            codes = self._call(_ATEN.slice.Tensor, codes, -1, 0, wanted)
        return codes if self._note.by_row else self._call(_ATEN.view.default, codes, [rows, columns])

    def _cut(self, values: Node) -> Node:
        """Without what filled the last blocks."""
        rows, columns = self._note.matrix_shape
        if values.meta["val"].shape[-1] != columns:
            values = self._call(_ATEN.slice.Tensor, values, -1, 0, columns)
        if not self._note.by_row and values.meta["val"].shape[0] != rows:
            values = self._call(_ATEN.slice.Tensor, values, 0, 0, rows)
        return values

    def _looked_up(self, node: Node) -> Node:
        if not self._note.by_row:
            return node
        return self._call(_ATEN.embedding.default, node, self._indices)

    def _scaled(self, values: Node) -> Node:
        """Values that their parameters broadcast against."""
        zero, offset = (self._buffers.parameter(suffix) for suffix in (ZERO_POINT_SUFFIX, OFFSET_SUFFIX))
        if zero is not None:
            values = self._call(_ATEN.sub.Tensor, values, self._cast(self._beside(zero), values.meta["val"].dtype))
        values = self._call(_ATEN.mul.Tensor, values, self._beside(self._buffers.scales))
        return values if offset is None else self._call(_ATEN.add.Tensor, values, self._beside(offset))

    def _beside(self, parameter: Node) -> Node:
        """A parameter for the rows that were looked up, or for all."""
        down, across = self._note.counts
        if down * across == 1:
            return parameter
        if not self._note.by_row:
            return parameter
        parameter = self._call(_ATEN.embedding.default, parameter, self._block_of_indices())
        return self._call(_ATEN.unsqueeze.default, parameter, -1) if across > 1 else parameter

    def _block_of_indices(self) -> Any:
        height = self._note.lengths[0]
        if height == 1:
            return self._indices
        rounding = {"rounding_mode": "floor"}
        return insert_call(self._user, _ATEN.div.Scalar_mode, self._indices, height, **rounding)

    def _in_blocks(self, values: Node) -> Node:
        (height, width), (down, across) = self._note.lengths, self._note.counts
        if self._note.by_row:
            values = self._call(_ATEN.unflatten.int, values, -1, [across, width])
            return self._call(_ATEN.flatten.using_ints, self._scaled(values), -2, -1)
        blocks = self._call(_ATEN.view.default, values, [down, height, across, width])
        return self._call(_ATEN.view.default, self._scaled(blocks), [down * height, across * width])

    def _looked_up_values(self, codes: Node) -> Node:
        starts, books = self._buffers.parameter(START_SUFFIX), self._buffers.parameter(CODEBOOK_SUFFIX)
        if starts is None:
            codes = self._cast(codes, torch.int32)
        else:
            codes = self._call(_ATEN.add.Tensor, codes, self._looked_up(starts))
        values = self._call(_ATEN.squeeze.dim, self._call(_ATEN.embedding.default, books, codes), -1)
        scale_codes = self._buffers.parameter(SCALE_CODES_SUFFIX)
        return values if scale_codes is None else self._scaled_groups(values, scale_codes)

    def _scaled_groups(self, values: Node, scale_codes: Node) -> Node:
        """Entries of a codebook, those of each group times its scale."""
        groups = scale_codes.meta["val"].shape[1]
        own = self._cast(self._looked_up(scale_codes), torch.int32)
        factors = self._call(_ATEN.embedding.default, self._buffers.parameter(SCALE_VALUES_SUFFIX), own)
        grouped = self._call(_ATEN.unflatten.int, values, -1, [groups, self._note.matrix_shape[1] // groups])
        return self._call(_ATEN.flatten.using_ints, self._call(_ATEN.mul.Tensor, grouped, factors), -2, -1)


def _scaled_linear(buffers: _Buffers, user: Node) -> Node:
    """``linear`` on the bare integers, its outputs scaled: one pass over the weight instead of two."""
    editor, scales = buffers.editor, buffers.scales
    dtype = scales.meta["val"].dtype
    integers = editor.cast(user, _Restoring(buffers, user).integers(), dtype)
    product = insert_call(user, _ATEN.linear.default, user.args[0], integers)
    scaled = insert_call(user, _ATEN.mul.Tensor, product, insert_call(user, _ATEN.view.default, scales, [-1]))
    bias = user.args[2] if len(user.args) > 2 else user.kwargs.get("bias")
    return scaled if bias is None else insert_call(user, _ATEN.add.Tensor, scaled, bias)
