"""Networks whose layers repeat, and what others do about it."""

import re
import tempfile
from pathlib import Path

import onnx
import onnx_ir
import onnxruntime
from onnx_ir.passes.common import DeduplicateInitializersPass

from tests.benchmarks import inputs, peers
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.messages import InspectModel, ModelInspection

_BLOCK = re.compile(r"layers\.(\d+)\.")


def minilm(folder: Path) -> OnnxModel:
    """all-MiniLM-L6-v2 in one ONNX file."""
    inspection = perform(InspectModel(path=str(inputs.minilm_onnx(folder))), folder, Context(scratch=folder))
    if not isinstance(inspection, ModelInspection) or inspection.clean is None:
        raise TypeError("an inspection that makes a clean file was asked for")
    return open_model(folder / inspection.clean, Context(scratch=folder))


def repeating_minilm(path: Path) -> Path:
    """MiniLM in which every second of the six blocks has the matrices of the one before, each stored for itself.

    It is the graph of an encoder that was trained with blocks shared in pairs, as ALBERT was, and exported without the
    ties; what it answers is of no use, which does not matter to what has to stay bit-identical.
    """
    with tempfile.TemporaryDirectory() as scratch:
        model = minilm(Path(scratch))
        blocks: dict[int, list] = {}
        for weight in model.weights():
            found = _BLOCK.search(weight.name)
            if found is not None:
                blocks.setdefault(int(found[1]), []).append(weight)
        for block in (1, 3, 5):
            pairs = list(zip(blocks[block - 1], blocks[block], strict=True))
            model.replace([(copy, model.matrix(original)) for original, copy in pairs])
        model.changed()
        model.save(path)
    return path


def repeated_bytes(path: Path) -> int:
    """Bytes of initializers, of at least 64 bytes, whose content stands in the file already."""
    seen: set[tuple[int, tuple[int, ...], bytes]] = set()
    repeated = 0
    for tensor in onnx.load(path).graph.initializer:
        key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        if len(tensor.raw_data) >= 64 and key in seen:
            repeated += len(tensor.raw_data)
        seen.add(key)
    return repeated


def deduplicated_by_onnx_ir(path: Path, made: Path) -> Path:
    """The initializer pass of torch's ONNX exporter, without its limit of 1,024 elements."""
    model = onnx_ir.load(path)
    DeduplicateInitializersPass(size_limit=1 << 40)(model)
    onnx_ir.save(model, made)
    return made


def saved_by_onnxruntime(path: Path, made: Path) -> Path:
    """What onnxruntime saves of a model it has optimized."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(made)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return made


def onnx_ir_peer(subject: peers.Subject) -> peers.Figures:
    """``deduplicated_by_onnx_ir`` of the row's model."""
    made = deduplicated_by_onnx_ir(subject.model, subject.folder / "peer.onnx")
    return peers.Figures(made.stat().st_size, 1.0, 1.0)
