"""Weights as integers at equal distances, packed in as many bits as they need, restored when the model is loaded.

The graph computes what ``UniformWeight.restored`` does in the same order, so the layer gets those very values. All of
it is folded when onnxruntime loads the model: the layer then runs as fast as in float, and takes as much memory.
While it folds, onnxruntime 1.32 holds every value on the way: about 19 bytes for each weight in groups, 15 in channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from workers.compression.coding.packing import Codes
from workers.compression.families.model import Array
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.unpacking import row_pieces
from workers.compression.families.onnx.walking import Value
from workers.compression.families.weights import Weight
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.uniform import UniformWeight


@dataclass(frozen=True, eq=False)
class Coded:
    """A uniform weight as codes from 0 on, all ``zeros`` and ``offsets`` given where the codes need them.

    ``value = (codes - zeros) * scales + offsets``, which is exactly what the form that it was made from stands for.
    """

    codes: Codes
    bits: int
    scales: Array
    zeros: Codes | None
    offsets: Array | None
    blocks: Blocks

    @classmethod
    def of(cls, form: UniformWeight) -> "Coded":
        """The same values. Moving signed integers up moves the zero points too and leaves offsets alone."""
        known = form.parameters
        half = 1 << (form.grid.bits - 1) if form.grid.signed else 0
        codes = (form.integers.astype(np.int16) + half).astype(np.uint8)
        zeros = None if known.zero is None and not half else (form.zeros.astype(np.int16) + half).astype(np.uint8)
        return cls(codes, form.grid.bits, known.scale, zeros, known.offset, form.blocks)

    @property
    def turned(self) -> "Coded":
        """The transposed matrix."""
        zeros = None if self.zeros is None else self.zeros.T
        offsets = None if self.offsets is None else self.offsets.T
        blocks = Blocks(self.blocks.shape[::-1], self.blocks.lengths[::-1])
        return Coded(self.codes.T, self.bits, self.scales.T, zeros, offsets, blocks)

    def pieces(self) -> Iterator["Coded"]:
        """Itself, cut along the rows so that no value on the way to the weight takes more than the limit."""
        (rows, columns), (count, groups), (height, length) = self.blocks.shape, self.blocks.counts, self.blocks.lengths
        if count == 1:
            for piece in row_pieces((rows, groups * length)):
                codes = self.codes[piece]
                yield replace(self, codes=codes, blocks=Blocks((len(codes), columns), (len(codes), length)))
            return
        for piece in row_pieces((count, height * groups * length)):
            codes = self.codes[piece.start * height : piece.stop * height]
            zeros = None if self.zeros is None else self.zeros[piece]
            offsets = None if self.offsets is None else self.offsets[piece]
            blocks = Blocks((len(codes), columns), (min(height, len(codes)), length))
            yield Coded(codes, self.bits, self.scales[piece], zeros, offsets, blocks)


def store_folded(editor: Editor, value: Value, weight: Weight, form: UniformWeight) -> None:
    """Stores ``value`` as packed codes and a chain that is folded at load.

    The codes of a plain matrix lie as the weight does: turning floats around would take memory at load.
    """
    chain = Chain(editor, value.scope, value.name)
    coded = Coded.of(form)
    turned = weight.order == (1, 0)
    parts = [_matrix(chain, piece) for piece in (coded.turned if turned else coded).pieces()]
    matrix = parts[0] if len(parts) == 1 else chain.add("Concat", *parts, axis=0)
    if not turned:
        as_stored(chain, matrix, weight)
    editor.replace_stored(value, chain.ending(value.name))


def as_stored(chain: Chain, matrix: str, weight: Weight) -> str:
    """Turns the matrix into what the weight's readers read."""
    permuted = [weight.shape[axis] for axis in weight.order]
    if len(permuted) != len(weight.matrix_shape):
        matrix = chain.reshape(matrix, permuted)
    if weight.order != tuple(range(len(permuted))):
        matrix = chain.add("Transpose", matrix, perm=[int(axis) for axis in np.argsort(weight.order)])
    return matrix


class ParameterNames(NamedTuple):
    """Names of values in float; None for those that are not needed."""

    zeros: str | None
    scales: str
    offsets: str | None

    def changed(self, change: Callable[[str], str]) -> "ParameterNames":
        """What ``change`` makes of each."""
        zeros, offsets = (None if name is None else change(name) for name in (self.zeros, self.offsets))
        return ParameterNames(zeros, change(self.scales), offsets)


def parameters(chain: Chain, coded: Coded, shape: tuple[int, ...]) -> ParameterNames:
    """Stores zero points (a single number where all are the same), scales and offsets in a shape."""
    zeros = None if coded.zeros is None or not coded.zeros.any() else _zeros(chain, coded, coded.zeros, shape)
    offsets = None if coded.offsets is None else chain.floats("offset", coded.offsets.reshape(shape))
    return ParameterNames(zeros, chain.floats("scale", coded.scales.reshape(shape)), offsets)


def arithmetic(chain: Chain, codes: str, names: ParameterNames) -> str:
    """``(codes - zeros) * scales + offsets``."""
    centred = codes if names.zeros is None else chain.add("Sub", codes, names.zeros)
    scaled = chain.add("Mul", centred, names.scales)
    return scaled if names.offsets is None else chain.add("Add", scaled, names.offsets)


def _zeros(chain: Chain, coded: Coded, zeros: Codes, shape: tuple[int, ...]) -> str:
    if (zeros == zeros.flat[0]).all():
        return chain.share("zero", np.array(zeros.flat[0], np.float32))
    return chain.codes("zero", zeros.reshape(shape), coded.bits)


def _matrix(chain: Chain, coded: Coded) -> str:
    """The weight's matrix, or some rows of it."""
    (rows, columns), (count, groups) = coded.blocks.shape, coded.blocks.counts
    height, length = coded.blocks.lengths
    if 1 in {count, height} and 1 in {groups, length}:
        codes = chain.codes("packed", coded.codes, coded.bits)
        return arithmetic(chain, codes, parameters(chain, coded, (count, groups)))
    split = (count, height, groups, length)
    lacking = (count * height - rows, groups * length - columns)
    if any(lacking):
        codes = chain.codes("packed", coded.codes, coded.bits)
        pads = chain.share("pads", np.array([0, 0, *lacking], np.int64))
        codes = chain.reshape(chain.add("Pad", codes, pads), split)
    else:
        codes = chain.codes("packed", coded.codes.reshape(split), coded.bits)
    restored = arithmetic(chain, codes, parameters(chain, coded, (count, 1, groups, 1)))
    matrix = chain.reshape(restored, (count * height, groups * length))
    if not any(lacking):
        return matrix
    ends = chain.share("to", np.array([rows, columns], np.int64))
    return chain.add("Slice", matrix, chain.share("from", np.array([0, 0], np.int64)), ends)
