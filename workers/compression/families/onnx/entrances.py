"""Where activations enter the layers that multiply them with a stored weight."""

from collections.abc import Iterator

from workers.compression.families.onnx.folding import folds
from workers.compression.families.onnx.walking import Index, Place, Reader, Value

INPUT, WEIGHT = 0, 1
"""Slots of the operators below."""
_LAYERS = frozenset({"Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"})


def layers_reading(index: Index, weight: Value) -> Iterator[Place]:
    """Products and convolutions of activations with a stored tensor, re-arranging nodes between them passed over."""
    waiting, seen = [weight], {weight}
    while waiting:
        for reader in index.readers.get(waiting.pop(0), ()):
            if folds(index, reader.place):
                made = index.made(reader.place)
                waiting.extend({made} - seen)
                seen.add(made)
            elif _multiplies(index, reader):
                yield reader.place


def _multiplies(index: Index, reader: Reader) -> bool:
    if reader.place.node.op_type not in _LAYERS or reader.slot != WEIGHT:
        return False
    entering = index.read(reader.place, INPUT)
    return entering is not None and entering not in index.stored
