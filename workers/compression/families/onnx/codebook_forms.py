"""Weights as packed codes into codebooks, which a ``Gather`` restores when onnxruntime loads the model.

Stock onnxruntime folds the whole chain, at the levels basic and up, so that the layer runs as fast as in float on the
very values of ``CodebookWeight.restored``. Of a weight that is mostly zero only the rest is stored. Embedding tables
are never restored as a whole: their rows are, as they are looked up. Several codebooks are read by
``GatherElements``, one row of codes for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto

from workers.compression.coding.packing import Codes
from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.sparse_forms import scattered, sparsely, zero_code
from workers.compression.families.onnx.table_forms import PackedRows
from workers.compression.families.onnx.uniform_forms import as_stored
from workers.compression.families.onnx.unpacking import row_pieces, unpacked
from workers.compression.families.onnx.walking import Place, Value, layer_name
from workers.compression.families.weights import Weight
from workers.compression.quantization.codebook import CodebookWeight, GroupScales


def store_codebook(editor: Editor, value: Value, weight: Weight, form: CodebookWeight) -> None:
    """Stores ``value`` as codes and codebooks, and a chain that is folded at load.

    Args:
        form: Whole rows of the matrix share a codebook.
    """
    chain = Chain(editor, value.scope, value.name)
    if form.scales is not None:
        as_stored(chain, _restore_with_scales(chain, form, form.scales), weight)
    elif form.codebooks.size == form.codebooks.shape[-1]:
        _restore_from_one(chain, weight, form)
    else:
        as_stored(chain, _restore_from_many(chain, form), weight)
    editor.replace_stored(value, chain.ending(value.name))


def store_codebook_table(
    editor: Editor, value: Value, weight: Weight, form: CodebookWeight, lookups: Sequence[Place]
) -> None:
    """Stores a table of one codebook; each row is restored when it is looked up, the table only for other readers.

    Args:
        lookups: The ``Gather`` nodes along its first axis; other readers may be there too.
    """
    head = Chain(editor, value.scope, value.name)
    packed = PackedRows(head, form.codes, form.bits)
    table = _Table(
        packed,
        head.floats("codebook", form.codebooks.reshape(-1), shared=form.scales is not None),
        form.codes.shape[1],
        None if form.scales is None else _StoredScales.of(head, form.scales),
    )
    for place in lookups:
        editor.replace(place, _lookup(editor, place, table))
    if len(editor.index.readers.get(value, [])) > len(lookups):
        as_stored(head, table.rows(head, None), weight)
        head.ending(value.name)
    editor.replace_stored(value, head.nodes)


def _restore_from_one(chain: Chain, weight: Weight, form: CodebookWeight) -> None:
    """Codes in the order in which the weight is stored: nothing has to be re-arranged at load."""
    codes = np.asarray(weight.from_matrix(form.codes), np.uint8)
    book = chain.floats("codebook", form.codebooks.reshape(-1))
    parts = [_entries(chain, form, book, codes[rows]) for rows in row_pieces(codes.shape)]
    if len(parts) > 1:
        chain.add("Concat", *parts, axis=0)


def _entries(chain: Chain, form: CodebookWeight, book: str, codes: Codes) -> str:
    """What codes stand for; zeros are left out of the file where that makes it smaller."""
    zero = zero_code(form)
    sparse = None if zero is None else sparsely((codes != zero).reshape(-1), form.bits)
    if sparse is None:
        return chain.add("Gather", book, _codes(chain, codes, form.bits))
    values = chain.add("Gather", book, _codes(chain, codes.reshape(-1)[sparse.entries], form.bits))
    return chain.reshape(scattered(chain, sparse, values), codes.shape)


def _restore_from_many(chain: Chain, form: CodebookWeight) -> str:
    """The matrix; what a shorter last group lacks is filled up and cut off again."""
    rows, columns = form.blocks.shape
    length, groups = form.blocks.lengths[0], form.blocks.counts[0]
    padded = np.zeros((groups * length, columns), np.uint8)
    padded[:rows] = form.codes
    by_group = padded.reshape(groups, length * columns)
    books = form.codebooks.reshape(groups, -1)
    parts = []
    for piece in row_pieces(by_group.shape):
        book = chain.floats("codebook", books[piece])
        parts.append(chain.add("GatherElements", book, _codes(chain, by_group[piece], form.bits), axis=1))
    restored = parts[0] if len(parts) == 1 else chain.add("Concat", *parts, axis=0)
    matrix = chain.reshape(restored, (groups * length, columns))
    return matrix if groups * length == rows else chain.first(matrix, rows, axis=0)


def _codes(chain: Chain, codes: Codes, bits: int) -> str:
    nodes, made = unpacked(chain.editor, chain.scope, chain.name, codes, bits, TensorProto.INT32)
    chain.nodes += nodes
    return made


def _restore_with_scales(chain: Chain, form: CodebookWeight, scales: GroupScales) -> str:
    """The matrix: entries of the one codebook, each group's multiplied by its scale."""
    book = chain.floats("codebook", form.codebooks.reshape(-1), shared=True)
    factors = chain.floats("scale", scales.values)
    parts = []
    for rows in row_pieces(form.codes.shape):
        codes = form.codes[rows].reshape(-1, scales.length)
        entries = chain.add("Gather", book, _codes(chain, codes, form.bits))
        own = chain.store("scale_codes", scales.codes[rows].reshape(-1, 1))
        scale = chain.add("Gather", factors, chain.add("Cast", own, to=TensorProto.INT32))
        parts.append(chain.reshape(chain.add("Mul", entries, scale), form.codes[rows].shape))
    return parts[0] if len(parts) == 1 else chain.add("Concat", *parts, axis=0)


@dataclass(frozen=True)
class _StoredScales:
    """Names of scale codes, shape (rows, groups, 1), and of their values."""

    codes: str
    values: str
    groups: int
    length: int

    @classmethod
    def of(cls, chain: Chain, scales: GroupScales) -> "_StoredScales":
        codes = chain.store("scale_codes", scales.codes[:, :, None])
        return cls(codes, chain.floats("scale", scales.values), scales.codes.shape[1], scales.length)


@dataclass(frozen=True)
class _Table:
    """A stored table: its packed rows, the codebook's name, the length of a row, and scales if it has any."""

    packed: PackedRows
    book: str
    columns: int
    scales: _StoredScales | None

    def rows(self, chain: Chain, positions: str | None, name: str = "") -> str:
        """Restored rows, shape (rows, columns); all rows if no positions are given."""
        codes = self.packed.unpacked(chain, positions, name)
        entries = chain.add("Gather", self.book, chain.add("Cast", codes, to=TensorProto.INT32))
        scales = self.scales
        if scales is None:
            return entries
        own = scales.codes if positions is None else chain.add("Gather", scales.codes, positions, axis=0)
        factor = chain.add("Gather", scales.values, chain.add("Cast", own, to=TensorProto.INT32))
        grouped = chain.reshape(entries, (-1, scales.groups, scales.length))
        return chain.reshape(chain.add("Mul", grouped, factor), (-1, self.columns))


def _lookup(editor: Editor, place: Place, table: _Table) -> list[NodeProto]:
    node = place.node
    chain = Chain(editor, place.scope, node.output[0])
    restored = table.rows(chain, chain.reshape(node.input[1], (-1,)), layer_name(node))
    width = chain.share("width", np.array([table.columns], np.int64))
    chain.add("Reshape", restored, chain.add("Concat", chain.add("Shape", node.input[1]), width, axis=0))
    return chain.ending(node.output[0])
