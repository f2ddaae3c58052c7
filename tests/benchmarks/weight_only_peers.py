"""What other tools make of a model whose weights they put into 4 bits."""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

from tests.benchmarks import peers
from tests.benchmarks.peer_environments import prepared

NNCF_SCRIPT = Path(__file__).with_name("peer_scripts") / "nncf_weights.py"
GROUP = 32
ORT_PATHS: Mapping[str, nbits.WeightOnlyQuantConfig] = {
    "onnxruntime MatMulNBits, rtn, asymmetric": nbits.DefaultWeightOnlyQuantConfig(GROUP, is_symmetric=False),
    "onnxruntime MatMulNBits, rtn, symmetric": nbits.DefaultWeightOnlyQuantConfig(GROUP, is_symmetric=True),
    "onnxruntime MatMulNBits, HQQ": nbits.HQQWeightOnlyQuantConfig(GROUP),
    "onnxruntime MatMulNBits, k-quant": nbits.KQuantWeightOnlyQuantConfig(),
}
NNCF_PATHS: Mapping[str, dict[str, object]] = {
    "NNCF INT4_SYM g32, OpenVINO": {"mode": "INT4_SYM", "group_size": 32},
    "NNCF INT4_ASYM g32, OpenVINO": {"mode": "INT4_ASYM", "group_size": 32},
    "NNCF INT4_ASYM g64, OpenVINO": {"mode": "INT4_ASYM", "group_size": 64},
    "NNCF INT4_ASYM g32 + AWQ, OpenVINO": {"mode": "INT4_ASYM", "group_size": 32, "awq": True},
    "NNCF INT4_ASYM g32 + scale estimation": {"mode": "INT4_ASYM", "group_size": 32, "scale_estimation": True},
    "NNCF INT4_ASYM g32 + GPTQ": {"mode": "INT4_ASYM", "group_size": 32, "gptq": True},
}


@dataclass(frozen=True)
class OrtModel:
    """A model of onnxruntime's quantizer, and the stored bits per weight of the products in it."""

    proto: ModelProto
    bits_per_weight: float


def matmul_nbits(path: Path, config: nbits.WeightOnlyQuantConfig) -> OrtModel:
    """Puts the products' weights into blocks of 4 bits; all else stays float."""
    original = onnx.load(path)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in original.graph.initializer}
    products = [node.input[1] for node in original.graph.node if node.op_type == "MatMul" and node.input[1] in sizes]
    quantizer = nbits.MatMulNBitsQuantizer(original, block_size=GROUP, is_symmetric=False, algo_config=config)
    with contextlib.redirect_stdout(io.StringIO()):  # it draws progress bars
        quantizer.process()
    proto = quantizer.model.model
    stored = {tensor.name: numpy_helper.to_array(tensor).nbytes for tensor in proto.graph.initializer}
    blocks = [node for node in proto.graph.node if node.op_type == "MatMulNBits"]
    if len(blocks) != len(products):
        raise ValueError(f"{len(blocks)} of {len(products)} products were quantized")
    size = sum(stored.get(name, 0) for node in blocks for name in node.input[1:4])
    return OrtModel(proto, 8.0 * size / sum(sizes[name] for name in products))


def nncf(path: Path, feeds: Path, outputs: Path, options: dict[str, object]) -> int:
    """Bytes of what OpenVINO saves; the first output of the evaluation rows goes to ``outputs``."""
    printed = prepared("nncf").run(NNCF_SCRIPT, path, feeds, outputs, json.dumps(options))
    return int(json.loads(printed.strip().splitlines()[-1]))


def ort_hqq(subject: peers.Subject) -> peers.Figures:
    """onnxruntime's ``MatMulNBitsQuantizer`` with HQQ, the best of its algorithms; tables stay float."""
    made = matmul_nbits(subject.plain(), ORT_PATHS["onnxruntime MatMulNBits, HQQ"])
    onnx.save(made.proto, subject.folder / "peer.onnx")
    return peers.judged(subject, subject.folder / "peer.onnx")
