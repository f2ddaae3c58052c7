import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.e2e import tiny_bert
from workers.compression.context import Context
from workers.compression.families.torch import huggingface
from workers.compression.families.torch.architectures import ARCHITECTURES, Architecture
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.registry import handler_for
from workers.compression.specs.errors import EngineError, InvalidModel, UnsafeModel, UnsupportedFormat
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.step import Step
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.quantize import DynamicQuantize, Float16Quantize

SMALL = {
    **dict.fromkeys(("hidden_size", "dim", "n_embd", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), 1),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 4),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 40),
    **dict.fromkeys(("bos_token_id", "cls_token_id"), 1),
    **dict.fromkeys(("eos_token_id", "sep_token_id"), 2),
    "vocab_size": 96,
    "head_dim": 8,
    "pad_token_id": 0,
}
HEADS = [
    served for served in ARCHITECTURES.values() if served.class_name.endswith(("Model", "ForCausalLM", "MaskedLM"))
]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(folder.rglob("*")):
            made.write(path, path.relative_to(folder))
    return archive


def cleaned(upload: Path, context: Context) -> Path:
    out = context.scratch / "out"
    out.mkdir()
    return context.scratch / str(huggingface.inspect(upload, out, context).clean)


def feeds_of(model: TransformerModel) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(3, 90, (2, 7))
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return {port.name: values[port.name] for port in model.inputs}


def stock_output(module: Any, architecture: Architecture, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        found = module(**{name: torch.from_numpy(values) for name, values in feeds.items()})
    output: np.ndarray = getattr(found, architecture.output).numpy()
    return output


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


@pytest.mark.parametrize("architecture", HEADS, ids=[served.class_name for served in HEADS])
def test_every_served_class_computes_what_stock_transformers_does(
    architecture: Architecture, tmp_path: Path, context: Context
) -> None:
    torch.manual_seed(0)
    served = architecture.load_class()
    declared = served.config_class.__annotations__
    module = served(served.config_class(**{key: value for key, value in SMALL.items() if key in declared})).eval()
    module.save_pretrained(tmp_path / "saved")

    clean = cleaned(zipped(tmp_path / "saved", tmp_path / "upload.zip"), context)
    model = huggingface.open_model(clean, context)
    feeds = feeds_of(model)
    again = served.from_pretrained(unpacked(clean, tmp_path / "clean")).eval()

    expected = stock_output(module, architecture, feeds)
    assert np.array_equal(model.run(feeds)[0], expected)
    assert np.array_equal(stock_output(again, architecture, feeds), expected)


@pytest.fixture(scope="module")
def digit_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT trained on digits written as words, as people upload it."""
    return tiny_bert.write_directory(tmp_path_factory.mktemp("bert"))


def right_answers(model: TransformerModel) -> float:
    images, labels = tiny_bert.digits_split()[1][:200], tiny_bert.digits_split()[3][:200]
    ids = tiny_bert.token_ids(images).numpy()
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return float(np.mean(model.run(feeds)[0].argmax(1) == labels))


@pytest.mark.parametrize(
    ("spec", "share"),
    [
        (DynamicQuantize(), 0.35),
        (DynamicQuantize(scheme="affine"), 0.36),
        (DynamicQuantize(granularity="tensor"), 0.34),
        (Float16Quantize(), 0.55),
    ],
    ids=["symmetric", "affine", "tensor", "float16"],
)
def test_artifacts_shrink_keep_their_answers_and_open_in_stock_transformers(
    spec: Step, share: float, digit_reader: Path, tmp_path: Path, context: Context
) -> None:
    original = huggingface.open_model(digit_reader, context)
    size, answers, feeds = original.size_bytes(), right_answers(original), feeds_of(original)

    handler_for(type(spec), ModelFormat.HUGGINGFACE)(original, spec, context).save(tmp_path / "made.zip")
    made = huggingface.open_model(tmp_path / "made.zip", context)
    stock = made.architecture.load_class().from_pretrained(unpacked(tmp_path / "made.zip", tmp_path / "made")).eval()

    assert made.size_bytes() < share * size
    assert right_answers(made) > answers - 0.02
    feeds = {name: values % 20 for name, values in feeds.items()}
    assert np.array_equal(stock_output(stock, made.architecture, feeds), made.run(feeds)[0])
    assert made.tokenizer_file() is not None


def test_saving_an_opened_artifact_gives_the_same_bytes(digit_reader: Path, tmp_path: Path, context: Context) -> None:
    model = huggingface.open_model(digit_reader, context)
    handler_for(DynamicQuantize, ModelFormat.HUGGINGFACE)(model, DynamicQuantize(), context).save(tmp_path / "a.zip")
    huggingface.open_model(tmp_path / "a.zip", context).save(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_pruning_counts_are_exact(digit_reader: Path, tmp_path: Path, context: Context) -> None:
    spec = MagnitudePrune(sparsity=0.4, include=("*.dense", "*.query"))
    model = huggingface.open_model(digit_reader, context)
    handler_for(MagnitudePrune, ModelFormat.HUGGINGFACE)(model, spec, context).save(tmp_path / "made.zip")

    layers = list(huggingface.open_model(tmp_path / "made.zip", context).tensors())

    chosen = [a for name, a in layers if a.ndim == 2 and name.endswith(("dense.weight", "query.weight"))]
    zeros = sum(int(np.count_nonzero(array == 0)) for array in chosen)
    assert zeros == round(0.4 * sum(array.size for array in chosen))
    assert all(np.count_nonzero(a == 0) == 0 for name, a in layers if name.endswith("value.weight"))


def altered(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive after ``change`` edited its members."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def with_config(**entries: Any) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        members["config.json"] = json.dumps(json.loads(members["config.json"]) | entries).encode()

    return change


def with_member(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: content})


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        (with_config(position_embedding_type="relative_key"), InvalidModel, "hf_config"),
        (with_config(_private="x"), UnsafeModel, "hf_config"),
        (with_config(hidden_act="os.system"), InvalidModel, "hf_config"),
        (with_config(quantization_config={"quant_method": "bitsandbytes"}), UnsupportedFormat, "hf_quantization"),
        (with_config(architectures=["BertForPreTraining"]), UnsupportedFormat, "hf_architecture"),
        (with_member("modules.json", b'[{"type": "os.system"}]'), UnsafeModel, "hf_code"),
        (with_member("2_Dense/model.safetensors", b"x"), InvalidModel, "hf_weights"),
        (with_member("tokenizer_config.json", b'{"a": [{"auto_map": {}}]}'), UnsafeModel, "hf_config"),
    ],
)
def test_folders_that_reach_beyond_weights_are_refused(
    change: Callable[[dict[str, bytes]], None],
    error: type[EngineError],
    reason: str,
    digit_reader: Path,
    tmp_path: Path,
    context: Context,
) -> None:
    with pytest.raises(error) as refused:
        huggingface.open_model(altered(digit_reader, tmp_path / "hostile.zip", change), context)
    assert refused.value.reason == reason


def test_inert_companions_travel_along_and_the_rest_is_named(
    digit_reader: Path, tmp_path: Path, context: Context
) -> None:
    def change(members: dict[str, bytes]) -> None:
        members |= {"README.md": b"# digits", "1_Pooling/config.json": b"{}", "onnx/model.onnx": b"x", "a.png": b"x"}

    clean = cleaned(altered(digit_reader, tmp_path / "upload.zip", change), context)

    with zipfile.ZipFile(clean) as archive:
        assert {"README.md", "1_Pooling/config.json", "tokenizer.json", "config.json"} <= set(archive.namelist())
        assert not {"onnx/model.onnx", "a.png"} & set(archive.namelist())
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert any("onnx/model.onnx" in warning for warning in context.warnings)
