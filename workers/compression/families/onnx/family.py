"""Opens and describes ONNX models: a single file, or an archive with data and tokenizer beside it."""

import json
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
from onnx import ModelProto
from pydantic import JsonValue

from workers.compression.context import Context
from workers.compression.families.onnx import external_data, gate
from workers.compression.families.onnx.functions import inline
from workers.compression.families.onnx.layers import stored_layers
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.operators import ML_DOMAIN
from workers.compression.families.onnx.sessions import open_session
from workers.compression.families.onnx.walking import Index
from workers.compression.families.statistics import describe_tensor
from workers.compression.specs.containers import archives
from workers.compression.specs.errors import InvalidModel
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import ModelInspection
from workers.compression.specs.metrics import TensorStatistics

MODEL_MEMBER = "model.onnx"
TOKENIZER_MEMBER = "tokenizer.json"
MAX_LISTED_TENSORS = 2000


@dataclass(frozen=True)
class _Upload:
    """A parsed upload and what came with it; ``rewritten`` says that its model is not the file as it was."""

    proto: ModelProto
    size_bytes: int
    tokenizer: Path | None
    embedded: bool
    rewritten: bool


def inspect(path: Path, out: Path, context: Context) -> ModelInspection:
    """Checks the upload, writes one self-contained file (a stored ZIP with a tokenizer) where it is not one yet."""
    upload = _read(path, context.scratch / "unpacked")
    inferred = gate.check(upload.proto)
    model = OnnxModel(upload.proto, upload.size_bytes, upload.tokenizer)
    open_session(model.serialized(), level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    layers = list(_layer_figures(upload.proto))
    return ModelInspection(
        format=ModelFormat.ONNX,
        family=_family_of(upload.proto),
        clean=_write_clean(model, upload, out) if upload.rewritten else None,
        parameters=sum(parameters for parameters, _ in layers),
        inputs=model.inputs,
        outputs=model.outputs,
        tensors=_statistics(model),
        details=_details(upload, [op for _, op in layers], len(inferred.graph.node)),
    )


def open_model(path: Path, context: Context) -> OnnxModel:
    """Opens a clean form; every check is made again."""
    upload = _read(path, context.scratch / f"opened-{path.name}")
    gate.check(upload.proto)
    return OnnxModel(upload.proto, upload.size_bytes, upload.tokenizer)


def _read(path: Path, folder: Path) -> _Upload:
    if archives.archive_kind(path) is None:
        return _parsed(path, None, archived=False)
    root = _unpack(path, folder)
    candidates = sorted(root.glob("*.onnx")) or sorted(root.glob("onnx/*.onnx"))
    if len(candidates) != 1:
        raise InvalidModel(
            f"The archive should hold one .onnx file at its top and holds {len(candidates)}.", reason="onnx_invalid"
        )
    return _parsed(candidates[0], _tokenizer(root, candidates[0].parent), archived=True)


def _parsed(path: Path, tokenizer: Path | None, *, archived: bool) -> _Upload:
    data = path.read_bytes()
    parsed = gate.parse(data)
    proto = inline(parsed)
    embedded = external_data.embed(proto, path.parent) if archived else 0
    inlined = proto is not parsed
    size = proto.ByteSize() if embedded or inlined else len(data)
    return _Upload(proto, size, tokenizer, embedded=embedded > 0, rewritten=archived or inlined)


def _unpack(path: Path, folder: Path) -> Path:
    attempt = 0
    while folder.with_name(f"{folder.name}-{attempt}").exists():
        attempt += 1
    return archives.extract(path, folder.with_name(f"{folder.name}-{attempt}"))


def _tokenizer(*folders: Path) -> Path | None:
    for folder in folders:
        found = folder / TOKENIZER_MEMBER
        if not found.is_file():
            continue
        try:
            json.loads(found.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InvalidModel("The tokenizer.json in the archive is not JSON.", reason="tokenizer_invalid") from error
        return found
    return None


def _write_clean(model: OnnxModel, upload: _Upload, out: Path) -> str:
    name = "clean.onnx" if upload.tokenizer is None else "clean.zip"
    if upload.tokenizer is None:
        model.save(out / name)
        return f"{out.name}/{name}"
    folder = out / "clean"
    folder.mkdir()
    model.save(folder / MODEL_MEMBER)
    upload.tokenizer.rename(folder / TOKENIZER_MEMBER)
    archives.stored_zip(folder, out / name)
    return f"{out.name}/{name}"


def _layer_figures(proto: ModelProto) -> list[tuple[int, str]]:
    return [(layer.parameters, layer.op) for layer in stored_layers(proto)]


def _family_of(proto: ModelProto) -> Family:
    places = Index.of(proto).places
    trees = any(place.node.domain == ML_DOMAIN and place.node.op_type.startswith("TreeEnsemble") for place in places)
    return Family.TREE_ENSEMBLE if trees else Family.NEURAL_NETWORK


def _statistics(model: OnnxModel) -> tuple[TensorStatistics, ...]:
    found: list[TensorStatistics] = []
    for name, values in model.tensors():
        if values.dtype.kind not in "OSU" and len(found) < MAX_LISTED_TENSORS:
            found.append(describe_tensor(name, values))
    return tuple(found)


def _details(upload: _Upload, layer_operators: list[str], nodes: int) -> dict[str, JsonValue]:
    proto = upload.proto
    operators = sorted({place.node.op_type for place in Index.of(proto).places})
    return {
        "ir_version": proto.ir_version,
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in proto.opset_import},
        "producer": proto.producer_name[:200],
        "nodes": nodes,
        "layers": len(layer_operators),
        "operators": list[JsonValue](operators[:500]),
        "external_data_embedded": upload.embedded,
        "tokenizer": upload.tokenizer is not None,
    }
