"""Weights that a file holds as codes or without their zeros: dense while they change, packed again afterwards."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, TensorProto

from workers.compression.families.onnx.expanding import expand, is_packed
from workers.compression.families.onnx.expansions import Expansion, expansions
from workers.compression.families.onnx.forms import store_forms
from workers.compression.families.onnx.matrices import weights_in
from workers.compression.families.onnx.sparse_floats import leave_out_zeros
from workers.compression.families.onnx.walking import Index, array, numel
from workers.compression.families.weights import Floats, Kept, Weight
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight

_MOST_VALUES = 256


@dataclass(frozen=True)
class Unpacked:
    """A model with dense weights.

    Args:
        proto: The model itself if nothing in it is packed.
        kept: What packing them again relies on, by the names of the weights that were packed.
    """

    proto: ModelProto
    kept: Mapping[str, Kept] = field(default_factory=dict)

    def pack(self) -> None:
        """Puts the weights into codes again, and leaves zeros out, in place.

        Of a weight whose elements share no few values any more nothing but zeros is left out.
        """
        if not self.kept:
            return
        if "values" in self.kept.values():
            store_forms(self.proto, list(self._coded()))
        if "zeros" in self.kept.values():
            leave_out_zeros(self.proto)

    def _coded(self) -> Iterator[tuple[Weight, CodebookWeight]]:
        for weight, found in weights_in(Index.of(self.proto)):
            if self.kept.get(weight.name) == "values":
                form = _coded(np.asarray(weight.to_matrix(array(found.tensor)), np.float32))
                if form is not None:
                    yield weight, form


def unpacked(proto: ModelProto, wanted: frozenset[Kept] = frozenset({"zeros", "values"})) -> Unpacked:
    """A copy in which weights that a codebook restores, or of which zeros alone are left out, are dense.

    Others, which are rounded or have many values besides, stay as they are.

    Args:
        wanted: Which of the two kinds.
    """
    index = Index.of(proto)
    found = {
        expansion.value.name: kept
        for expansion in expansions(index)
        if expansion.value.scope is index.scopes[0] and (kept := _kept(expansion)) in wanted
    }
    if not found:
        return Unpacked(proto)
    dense = ModelProto()
    dense.CopyFrom(proto)
    expand(dense, lambda expansion: expansion.value.scope.parent is None and expansion.value.name in found)
    return Unpacked(dense, found)


def _kept(expansion: Expansion) -> Kept | None:
    if expansion.positions is not None or not is_packed(expansion):
        return None
    operators = {place.node.op_type for place in expansion.places}
    if "Gather" in operators:
        return "values" if len(np.unique(expansion.computed())) <= _MOST_VALUES else None
    stored = [expansion.index.stored[leaf] for leaf in expansion.leaves]
    values = any(tensor.data_type == TensorProto.FLOAT and numel(tensor) > 1 for tensor in stored)
    return "zeros" if values and "ScatterElements" in operators else None


def _coded(matrix: Floats) -> CodebookWeight | None:
    values, codes = np.unique(matrix, return_inverse=True)
    if len(values) > _MOST_VALUES:
        return None
    bits = max(1, (len(values) - 1).bit_length())
    blocks = Blocks.of_matrix((matrix.shape[0], matrix.shape[1]), "tensor")
    return CodebookWeight(codes.reshape(matrix.shape).astype(np.uint8), values[None, None], bits, blocks)
