"""What enters the layers of an ONNX model: products, convolutions and the input side of recurrences."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from onnx import AttributeProto, ModelProto, NodeProto

from workers.compression.data import Dataset
from workers.compression.families.model import Feeds
from workers.compression.families.observed_inputs import BATCH_ROWS, Entry, Observed, Windows, gathered
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.folding import folds
from workers.compression.families.onnx.matrices import weights_in
from workers.compression.families.onnx.observing import observe
from workers.compression.families.onnx.walking import Index, Reader, Value, integer_attribute
from workers.compression.families.weights import LayerInputs, Weight
from workers.compression.specs.messages import Port

_INPUT, _WEIGHT = 0, 1
_TRANSPOSED_INPUT = {"Gemm": "transA", "FusedGemm": "transA", "FusedMatMul": "transA"}
_PRODUCTS = frozenset({"MatMul", "Attention", *_TRANSPOSED_INPUT})
_CONVOLUTIONS = frozenset({"Conv", "FusedConv"})
_RECURRENCES = frozenset({"LSTM", "GRU", "RNN"})


def layer_inputs(
    proto: ModelProto,
    weights: Iterable[Weight],
    dataset: Dataset,
    inputs: tuple[Port, ...],
    tokenizer: Path | None,
    threads: int,
) -> Iterator[tuple[Weight, LayerInputs]]:
    """Statistics for the weights whose layers all stand in the main graph and can be watched.

    Args:
        inputs: The model's.
        tokenizer: The model's, for text.
    """
    index = Index.of(proto)
    found = {weight.name: _entries(index, weight, place) for weight, place in weights_in(index)}

    def run(sources: Sequence[Hashable]) -> Observed:
        waiting: list[Feeds] = []

        def noted() -> Iterator[Feeds]:
            for batch in dataset.batches(inputs, BATCH_ROWS, tokenizer):
                waiting.append(batch.feeds)
                yield batch.feeds

        for values in observe(proto, [str(source) for source in sources], noted(), threads):
            yield waiting.pop(), {source: [values[str(source)]] for source in sources}

    return gathered(weights, {name: own for name, own in found.items() if own}, run)


def _entries(index: Index, weight: Weight, found: FloatWeight) -> tuple[Entry, ...] | None:
    """What enters each of the layers that read a weight; None where that of one is not known."""
    entries = []
    for reader, turned in _readers(index, found.value):
        entry = _entry(index, weight, reader, turned=turned)
        if entry is None:
            return None
        entries.append(entry)
    return tuple(dict.fromkeys(entries))


def _readers(index: Index, value: Value, *, turned: bool = False) -> Iterator[tuple[Reader, bool]]:
    """Nodes that compute with a stored value, and whether it is transposed on the way."""
    for reader in index.readers.get(value, ()):
        if reader.place.node.op_type == "Transpose" and folds(index, reader.place):
            yield from _readers(index, index.made(reader.place), turned=not turned)
        else:
            yield reader, turned


def _entry(index: Index, weight: Weight, reader: Reader, *, turned: bool) -> Entry | None:
    node, columns = reader.place.node, weight.matrix_shape[1]
    entering = index.read(reader.place, _INPUT)
    if reader.slot != _WEIGHT or entering is None or entering in index.stored or entering.scope is not index.scopes[0]:
        return None
    if node.op_type in _PRODUCTS and len(weight.shape) == 2:
        # The matrix has its columns along the product's inner axis, or the weight is read in a way not known here.
        by_rows = turned != bool(integer_attribute(node, "transB", 0) and node.op_type != "MatMul")
        if weight.order != ((0, 1) if by_rows else (1, 0)):
            return None
        transposed = integer_attribute(node, _TRANSPOSED_INPUT.get(node.op_type, ""), 0)
        return Entry(entering.name, columns, axis=-2 if transposed else -1)
    if node.op_type in _RECURRENCES and not turned:
        return Entry(entering.name, columns)
    if node.op_type in _CONVOLUTIONS and not turned:
        return Entry(entering.name, columns, _windows(node, weight))
    return None


def _windows(node: NodeProto, weight: Weight) -> Windows:
    kernel = weight.shape[2:]
    attributes = {attribute.name: attribute for attribute in node.attribute}
    ones, zeros = (1,) * len(kernel), (0,) * 2 * len(kernel)
    pads = _integers(attributes.get("pads"), zeros)
    same = attributes["auto_pad"].s.decode().lower() if "auto_pad" in attributes else "notset"
    return Windows(
        kernel,
        _integers(attributes.get("strides"), ones),
        _integers(attributes.get("dilations"), ones),
        "same_upper" if same == "same_upper" else "same_lower" if same == "same_lower" else _pairs(pads),
        integer_attribute(node, "group", 1),
    )


def _integers(attribute: AttributeProto | None, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    return otherwise if attribute is None else tuple(attribute.ints)


def _pairs(pads: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))
