"""What repeats in a model is stored once, and stock runtimes load the result."""

import json
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from tests import trained
from tests.compression.techniques.share import siblings
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import as_tensors
from workers.compression.layers import compare_layers
from workers.compression.registry import family, handler_for
from workers.compression.specs.errors import NothingCompressed, UnsupportedTechnique
from workers.compression.specs.messages import InspectModel, ModelInspection
from workers.compression.specs.steps.share import TieShare

WEIGHT_BYTES = 64 * 64 * 4


def opened(path: Path) -> Model:
    """As a job opens an upload: through inspection."""
    inspection = perform(InspectModel(path=str(path)), path.parent, Context(scratch=path.parent))
    assert isinstance(inspection, ModelInspection)
    clean = path.parent / inspection.clean if inspection.clean else path
    return family(inspection.format).open_model(clean, Context(scratch=path.parent))


def tied(path: Path, made: Path, tolerance: float = 0.0) -> Model:
    """Ties a file into another one; returns the model that was saved. Beside it lies what is saved of it untied."""
    model = opened(path)
    model.save(untied(made))
    spec = TieShare(tolerance=tolerance)
    model = handler_for(TieShare, model.format)(model, spec, Context(scratch=path.parent))
    model.save(made)
    return model


def untied(made: Path) -> Path:
    """Where ``tied`` saves the model as it came, without what the upload held besides."""
    return made.with_name(f"untied{made.suffix}")


def run_onnx(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"input": siblings.rows().numpy()})[0])


def test_an_onnx_model_whose_layers_repeat_shrinks_by_what_repeats_and_answers_the_same(tmp_path: Path) -> None:
    path, made = siblings.one_layer_trained_twice(tmp_path / "repeats.onnx"), tmp_path / "tied.onnx"

    model = tied(path, made)

    assert path.stat().st_size - made.stat().st_size >= WEIGHT_BYTES
    assert np.array_equal(run_onnx(path), run_onnx(made))
    assert _copies(model) == 1
    before = opened(path)
    layers = {layer.name: layer for layer in compare_layers(before, model)}
    saved = sum(layer.bytes_before - layer.bytes_after for layer in layers.values())
    assert saved == WEIGHT_BYTES, "each copy is counted once"


def test_an_exported_program_keeps_one_copy_and_answers_the_same(tmp_path: Path) -> None:
    path, made = siblings.program_of_one_layer_twice(tmp_path / "repeats.pt2"), tmp_path / "tied.pt2"

    model = tied(path, made)

    assert untied(made).stat().st_size - made.stat().st_size > WEIGHT_BYTES + 64 * 4
    modules = [torch.export.load(file).module() for file in (path, made)]
    assert torch.equal(*(module(siblings.rows()) for module in modules))
    names = ["1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias"]
    assert list(modules[1].state_dict()) == names
    assert sum(layer.bytes for layer in model.stored_layers()) == 4 * (64 * 64 + 64 + 64 * 10 + 10)


def test_two_models_in_one_file_store_their_common_layers_once(tmp_path: Path) -> None:
    path, made = siblings.tensors_of_two_models(tmp_path / "pair.safetensors"), tmp_path / "tied.safetensors"
    tensors = safetensors.torch.load_file(path)

    model = tied(path, made)

    assert made.stat().st_size < 0.65 * path.stat().st_size
    namespace: dict[str, dict[str, torch.Tensor]] = {}
    exec(model.load_snippet(str(made)), namespace)
    assert namespace["tensors"].keys() == tensors.keys()
    for name, values in tensors.items():
        assert torch.equal(namespace["tensors"][name], values), name


def test_a_checkpoint_gives_every_name_back(tmp_path: Path) -> None:
    path, made = siblings.checkpoint_of_two_models(tmp_path / "pair.pth"), tmp_path / "tied.pth"

    tied(path, made)

    assert made.stat().st_size < 0.65 * path.stat().st_size
    before, after = (torch.load(file, weights_only=True) for file in (path, made))
    assert all(torch.equal(after[name], values) for name, values in before.items())


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_near_layers_are_tied_within_the_tolerance_only(kind: str, tmp_path: Path) -> None:
    write = siblings.one_layer_trained_twice if kind == "onnx" else siblings.program_of_one_layer_twice
    path, made = write(tmp_path / f"near.{kind}", change=0.01), tmp_path / f"tied.{kind}"
    copies = _copies(tied(path, made, 0.02))
    with pytest.raises(NothingCompressed) if kind == "onnx" else nullcontext():
        # torch's exporter of ONNX has tied the biases already; in the exported program they are all that repeats.
        assert _copies(tied(path, tmp_path / f"other.{kind}", 0.002)) == 2

    assert copies == 1
    after = opened(made)
    kept = next(np.asarray(values) for _, values in after.tensors() if values.size == 64 * 64)
    for layer in (1, 3):
        weight = siblings.one_layer_applied_twice(0.01)[layer].weight.detach().numpy()
        distance = min(np.linalg.norm(weight - found) for found in (kept, kept.T)) / np.linalg.norm(weight)
        assert distance == pytest.approx(0.005, rel=0.1), "half way between the two"


def _copies(model: Model) -> int:
    return sum(values.size == 64 * 64 for _, values in model.tensors())


def test_near_tensors_of_a_file_become_their_mean(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    first = torch.randn(64, 64, generator=random)
    second = first + 1e-3 * torch.randn(64, 64, generator=random)
    path, made = tmp_path / "near.safetensors", tmp_path / "tied.safetensors"
    safetensors.torch.save_file({"a": first.bfloat16(), "b": second.bfloat16()}, path)

    model = as_tensors(tied(path, made, 0.01))

    assert made.stat().st_size < 0.6 * path.stat().st_size
    stored = safetensors.torch.load_file(made)["a"]
    torch.testing.assert_close(stored, ((first + second) / 2).bfloat16(), rtol=0.01, atol=1e-4)
    assert dict(model.shared) == {"b": "a"}


def test_a_language_model_with_a_copy_of_its_table_loads_tied_in_transformers(tmp_path: Path) -> None:
    path, made = siblings.language_model_with_a_copied_table(tmp_path / "llama.zip"), tmp_path / "tied.zip"
    model = opened(path)
    tokens = np.arange(12).reshape(1, 12)
    before = model.run({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})[0]

    after = tied(path, made)

    assert np.array_equal(after.run({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})[0], before)
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "folder")
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["tie_word_embeddings"] is True
    stored = safetensors.torch.load_file(tmp_path / "folder" / "model.safetensors")
    assert "lm_head.weight" not in stored
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "folder").eval()
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(torch.from_numpy(tokens)).logits.numpy(), before)
    reopened = opened(made).run({"input_ids": tokens, "attention_mask": np.ones_like(tokens)})[0]
    assert np.array_equal(reopened, before)


def test_layers_that_transformers_could_not_load_tied_are_refused(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    state = dict(BertModel(config).state_dict())
    state |= {name.replace("layer.0", "layer.1"): values for name, values in state.items() if "layer.0" in name}
    copied = {name: values.clone() for name, values in state.items()}
    path = siblings.write_folder(tmp_path / "bert.zip", config, "BertModel", copied)

    with pytest.raises(UnsupportedTechnique, match="transformers cannot load tied"):
        tied(path, tmp_path / "tied.zip")


def test_thousands_of_equal_tensors_and_their_readers(tmp_path: Path) -> None:
    count = 3000
    ones = [numpy_helper.from_array(np.ones((4, 8), np.float32), f"w{number}") for number in range(count)]
    names = ["input", *(f"sum{number}" for number in range(count - 1)), "output"]
    nodes = [helper.make_node("Add", [names[at], f"w{at}"], [names[at + 1]]) for at in range(count)]
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 8]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "sums", [shapes[0]], [shapes[1]], ones)
    path, made = tmp_path / "many.onnx", tmp_path / "tied.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

    tied(path, made)

    assert len(onnx.load(made).graph.initializer) == 1
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    assert (session.run(None, {"input": np.zeros((4, 8), np.float32)})[0] == count).all()


def test_a_model_without_repeats_is_refused(tmp_path: Path) -> None:
    path = trained.write_onnx("cnn", tmp_path / "cnn.onnx")

    with pytest.raises(NothingCompressed, match="No two stored tensors"):
        tied(path, tmp_path / "tied.onnx")
