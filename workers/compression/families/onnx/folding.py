"""Values that a graph computes from stored tensors alone: onnxruntime folds them when it loads the model."""

from onnx import TensorProto

from workers.compression.families.onnx.walking import STANDARD, Index, Place, Value

FOLDABLE = frozenset(
    [
        "Add",
        "BitShift",
        "Cast",
        "Concat",
        "CumSum",
        "DequantizeLinear",
        "Div",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "Identity",
        "Mul",
        "Pad",
        "Reshape",
        "ScatterElements",
        "Slice",
        "Squeeze",
        "Sub",
        "Transpose",
        "Unsqueeze",
    ]
)
"""Operators that stand between a stored weight and the node that computes with it, written by exporters or by us."""

CODES = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4})
"""Types of tensors that tables and codebooks may be looked up by."""


def folds(index: Index, place: Place) -> bool:
    """Whether a node only re-arranges or restores stored tensors, so that it vanishes when the model is loaded."""
    if not index.folded:
        for candidate in index.places:
            index.folded[candidate] = _folds(index, candidate)
    return index.folded[place]


def _folds(index: Index, place: Place) -> bool:
    """Nodes before ``place`` are known already."""
    if place.node.op_type not in FOLDABLE or place.node.domain not in STANDARD:
        return False
    if place.node.op_type == "Gather" and not _reads_codes(index, index.read(place, 1)):
        return False
    for slot in range(len(place.node.input)):
        value = index.read(place, slot)
        if value is None or value in index.stored:
            continue
        maker = index.makers.get(value)
        if maker is None or not (maker.node.op_type == "Constant" or index.folded.get(maker, False)):
            return False
    return True


def _reads_codes(index: Index, value: Value | None) -> bool:
    """Whether stored codes, not positions of rows, make up ``value``: what it looks up is a codebook, not a table."""
    while value is not None and value not in index.stored:
        maker = index.makers.get(value)
        if maker is None or maker.node.op_type not in FOLDABLE:
            return False
        value = index.read(maker, 0)
    return value is not None and index.stored[value].data_type in CODES
