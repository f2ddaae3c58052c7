"""Evidence of low-rank factors."""

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from tests.benchmarks import inputs, peers
from tests.benchmarks.rows import DIGITS, MINILM, WORDS, Row, _cnn_data, _cnn_onnx, _cnn_pt2

KEEP = 0.6


def plain_svd(subject: peers.Subject) -> peers.Figures:
    """``torch.linalg.svd`` of each weight by itself, the same share of parameters in every layer."""
    onnx.save(_factored(onnx.load(subject.plain())), subject.folder / "peer.onnx")
    return peers.judged(subject, subject.folder / "peer.onnx")


def plain_svd_exported(subject: peers.Subject) -> peers.Figures:
    """The same of the network that the program was exported from."""
    original = _cnn_onnx(subject.folder)
    onnx.save(_factored(onnx.load(original)), subject.folder / "peer.onnx")
    return peers.judged(subject, subject.folder / "peer.onnx", original=original)


def _factored(proto: onnx.ModelProto) -> onnx.ModelProto:
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        tensor = stored.get(node.input[1]) if len(node.input) > 1 else None
        whole = node.op_type != "Conv" or not any(found.name == "group" and found.i > 1 for found in node.attribute)
        if node.op_type not in {"MatMul", "Conv", "Gemm"} or tensor is None or not whole:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(tensor)
        columns = values.reshape(len(values), -1)
        rank = max(1, int(KEEP * columns.size / sum(columns.shape)))
        left, scale, right = torch.linalg.svd(torch.from_numpy(columns.copy()), full_matrices=False)
        first, second = (left[:, :rank] * scale[:rank]).numpy(), right[:rank].numpy()
        nodes += _two_nodes(proto, node, values, first, second)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    unread = {tensor.name for tensor in proto.graph.initializer} - {name for node in nodes for name in node.input}
    for place in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[place].name in unread:
            del proto.graph.initializer[place]
    return proto


def _two_nodes(
    proto: onnx.ModelProto, node: onnx.NodeProto, values: np.ndarray, first: np.ndarray, second: np.ndarray
) -> list[onnx.NodeProto]:
    narrow, wide = onnx.NodeProto(), onnx.NodeProto()
    narrow.CopyFrom(node)
    wide.CopyFrom(node)
    transposed = any(found.name == "transB" and found.i for found in node.attribute)
    if node.op_type == "Conv":
        before, after = second.reshape(-1, *values.shape[1:]), first.reshape(*first.shape, *[1] * (values.ndim - 2))
        del wide.attribute[:]
    else:
        before, after = (second, first) if transposed else (first, second)
    narrow.name, wide.input[0] = f"{node.name}_narrow", f"{node.output[0]}_narrow"
    narrow.output[0] = wide.input[0]
    del narrow.input[2:]
    for target, part, name in ((narrow, before, "narrow"), (wide, after, "wide")):
        target.input[1] = f"{node.input[1]}_{name}"
        proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(part), target.input[1]))
    return [narrow, wide]


SVD = {"technique": "lowrank", "method": "svd", "keep": KEEP}
ROWS = (
    Row(
        SVD | {"round_to": 1}, "CNN trained on digits, ONNX", _cnn_onnx, DIGITS, _cnn_data, "accuracy",
        "torch.linalg.svd of each weight, one share for all", plain_svd,
    ),
    Row(
        SVD | {"round_to": 1}, "CNN trained on digits, pt2", _cnn_pt2, DIGITS, _cnn_data, "accuracy",
        "torch.linalg.svd of each weight, one share for all", plain_svd_exported,
    ),
    Row(
        SVD, f"{MINILM}, ONNX", inputs.minilm_onnx, WORDS, inputs.word_pairs, "spearman",
        "torch.linalg.svd of each weight, one share for all", plain_svd,
    ),
)  # fmt: skip
