"""All layers of a model read one codebook, of which every file holds one copy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from tests import trained
from tests.compression.judging import cosine, logits
from tests.compression.training.attempts import attempt, opened
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.tensors.safetensors_file import open_model as open_safetensors
from workers.compression.families.weights import CompressibleModel, as_compressible
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.kmeans import Clustering, cluster
from workers.compression.quantization.shared_kmeans import coded_by, shared_codebook
from workers.compression.registry import family, handler_for
from workers.compression.specs.errors import NumericalFailure
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.specs.steps.share import ClusterShare

Digits = Callable[..., Dataset]


def tensors_file(path: Path) -> Path:
    safetensors.torch.save_file(dict(trained.trained("mlp").state_dict()), path)
    return path


def checkpoint(path: Path) -> Path:
    torch.save(trained.trained("mlp").state_dict(), path)
    return path


FILES: dict[ModelFormat, Callable[[Path], Path]] = {
    ModelFormat.ONNX: lambda path: trained.write_onnx("mlp", path),
    ModelFormat.PT2: lambda path: trained.write_pt2("mlp", path),
    ModelFormat.SAFETENSORS: tensors_file,
    ModelFormat.TORCH_STATE_DICT: checkpoint,
}


def clustered(model_format: ModelFormat, folder: Path, spec: ClusterShare) -> tuple[CompressibleModel, Path]:
    """The clustered perceptron, and where it was saved."""
    context = Context(scratch=folder)
    opened = family(model_format).open_model(FILES[model_format](folder / "upload"), context)
    model = as_compressible(handler_for(ClusterShare, model_format)(opened, spec, context))
    made = folder / f"made{model.extension}"
    model.save(made)
    return model, made


@pytest.mark.parametrize("model_format", FILES)
def test_the_report_counts_one_codebook(model_format: ModelFormat, tmp_path: Path) -> None:
    """Of 256 entries; one for each layer would be twice as much more."""
    model, made = clustered(model_format, tmp_path, ClusterShare(bits=8))
    reopened = family(model_format).open_model(made, Context(scratch=tmp_path))

    weights = [values for name, values in trained.trained("mlp").state_dict().items() if name.endswith("weight")]
    rows = [len(values) for values in weights]
    codes = sum(values.numel() for values in weights)
    scales = sum(rows) + 4 * sum(min(256, count) for count in rows)
    for kept in (model, reopened):
        rest = sum(layer.bytes for layer in kept.stored_layers()) - codes - 4 * sum(rows)
        assert 256 * 2 <= rest <= scales + 256 * 4


def test_an_onnx_file_holds_one_codebook_and_onnxruntime_computes_with_what_it_restores(tmp_path: Path) -> None:
    model, made = clustered(ModelFormat.ONNX, tmp_path, ClusterShare(bits=5))

    books = [tensor for tensor in onnx.load(made).graph.initializer if tensor.name.endswith("_codebook")]
    assert [list(book.dims) for book in books] == [[32]]
    rows = trained.digits_split()[1]
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    (name,) = (port.name for port in model.inputs)
    answers = session.run(None, {name: rows})[0].argmax(1)
    before = trained.trained("mlp")(torch.from_numpy(rows)).argmax(1).numpy()
    assert np.mean(answers == before) > 0.98


def test_an_exported_program_keeps_its_one_codebook_when_it_is_opened_and_saved_again(tmp_path: Path) -> None:
    _, made = clustered(ModelFormat.PT2, tmp_path, ClusterShare(bits=8))
    reopened = family(ModelFormat.PT2).open_model(made, Context(scratch=tmp_path))
    reopened.save(tmp_path / "again.pt2")

    assert (tmp_path / "again.pt2").stat().st_size == made.stat().st_size
    state = torch.export.load(made).state_dict
    books = [tensor for name, tensor in state.items() if name.endswith("codebook")]
    assert len(books) == 3
    assert len({book.data_ptr() for book in books}) == 1
    rows = torch.from_numpy(trained.digits_split()[1])
    answers = [torch.export.load(path).module()(rows) for path in (made, tmp_path / "again.pt2")]
    assert torch.equal(*answers)


@pytest.mark.parametrize("model_format", [ModelFormat.SAFETENSORS, ModelFormat.TORCH_STATE_DICT])
def test_stock_code_restores_the_tensors_of_a_file_with_one_codebook(model_format: ModelFormat, tmp_path: Path) -> None:
    model, made = clustered(model_format, tmp_path, ClusterShare(bits=6, scale_group=32))

    namespace: dict[str, dict[str, torch.Tensor]] = {}
    exec(model.load_snippet(str(made)), namespace)
    restored = namespace["tensors" if model_format is ModelFormat.SAFETENSORS else "state_dict"]
    original = trained.trained("mlp").state_dict()
    assert restored.keys() == original.keys()
    reopened = as_compressible(family(model_format).open_model(made, Context(scratch=tmp_path)))
    for name, values in reopened.tensors():
        np.testing.assert_array_equal(restored[name].numpy(), values)
        error = np.linalg.norm(values - original[name].numpy()) / np.linalg.norm(original[name].numpy())
        assert error < 0.05


def test_a_safetensors_file_holds_one_codebook(tmp_path: Path) -> None:
    _, made = clustered(ModelFormat.SAFETENSORS, tmp_path, ClusterShare())
    stored = safetensors.torch.load_file(made)

    assert sum(name.endswith(".codebook") for name in stored) == 1
    assert sum(name.endswith(".codes") for name in stored) == 3
    open_safetensors(made, Context(scratch=tmp_path)).save(tmp_path / "again.safetensors")
    assert safetensors.torch.load_file(tmp_path / "again.safetensors").keys() == stored.keys()


def layers_of_one_kind(count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Small layers, alike up to the scale of each output, as those of a trained network are."""
    scales = np.exp(random.normal(0.0, 0.5, (count, 48, 1)))
    return [(scale * random.standard_normal((48, 48))).astype(np.float32) for scale in scales]


def test_small_layers_with_a_large_codebook_take_less_and_err_less_than_with_one_for_each() -> None:
    matrices = layers_of_one_kind(12, np.random.default_rng(0))
    wanted = Clustering(6)
    book = shared_codebook(((matrix, 48) for matrix in matrices), wanted)

    errors = np.zeros(2)
    for matrix in matrices:
        shared = coded_by(matrix, 48, book, wanted)
        own = cluster(matrix, Blocks.of_matrix((48, 48), "tensor"), wanted)
        errors += [np.mean(np.square(form.restored() - matrix)) / np.mean(np.square(matrix)) for form in (shared, own)]

    assert errors[0] < 0.85 * errors[1]
    sizes = (4 * book.size + 12 * (48 + 2 * 48), 12 * 4 * 64)
    assert sizes[0] < sizes[1]


def test_zeros_of_any_layer_stay_zeros_and_nothing_else_becomes_one() -> None:
    matrices = layers_of_one_kind(3, np.random.default_rng(1))
    matrices[1][np.abs(matrices[1]) < np.median(np.abs(matrices[1]))] = 0.0
    wanted = Clustering(4)
    book = shared_codebook(((matrix, 48) for matrix in matrices), wanted)

    assert 0.0 in book
    for matrix in matrices:
        restored = coded_by(matrix, 48, book, wanted).restored()
        np.testing.assert_array_equal(restored == 0.0, matrix == 0.0)


def test_a_layer_of_zeros_is_restored() -> None:
    matrices = [np.zeros((32, 32), np.float32), np.ones((32, 32), np.float32)]
    wanted = Clustering(2)
    book = shared_codebook(((matrix, 32) for matrix in matrices), wanted)

    for matrix in matrices:
        np.testing.assert_array_equal(coded_by(matrix, 32, book, wanted).restored(), matrix)


def test_a_weight_that_holds_nan_is_named(tmp_path: Path) -> None:
    state = {name: values.clone() for name, values in trained.trained("mlp").state_dict().items()}
    state["2.weight"][3, 3] = float("nan")
    safetensors.torch.save_file(state, tmp_path / "nan.safetensors")
    model = open_safetensors(tmp_path / "nan.safetensors", Context(scratch=tmp_path))

    with pytest.raises(NumericalFailure, match=r"2\.weight"):
        handler_for(ClusterShare, ModelFormat.SAFETENSORS)(model, ClusterShare(), Context(scratch=tmp_path))


@pytest.fixture(scope="module")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    path = trained.write_npz("mlp", tmp_path_factory.mktemp("rows") / "train.npz", train=True)
    return Data(train=DatasetFile(path=str(path), format=DatasetFormat.NPZ))


@pytest.mark.parametrize("model_format", [ModelFormat.ONNX, ModelFormat.PT2])
def test_a_trained_codebook_regains_what_two_bits_lost_and_stays_one(
    model_format: ModelFormat, training_data: Data, digits: Digits, tmp_path: Path
) -> None:
    model = ModelFile(path=str(FILES[model_format](tmp_path / "upload")), format=model_format)
    recovery = RecoverFinetune(epochs=4.0, learning_rate=1e-2, teacher=1.0)
    untrained = attempt(tmp_path / "a", model, [ClusterShare(bits=2)], Data())
    learnt, again = (
        attempt(tmp_path / name, model, [ClusterShare(bits=2, recovery=recovery)], training_data) for name in "bc"
    )

    assert learnt.sha256 == again.sha256
    assert learnt.artifact.stat().st_size <= untrained.artifact.stat().st_size
    exact, before, after = (
        logits(one, digits("mlp")) for one in (opened(model, tmp_path), untrained.open(), learnt.open())
    )
    assert 1.0 - cosine(exact, after) < 0.5 * (1.0 - cosine(exact, before))
    assert "3 of 3 weights" in learnt.made.steps[0].changed


def test_an_interrupted_training_of_a_shared_codebook_ends_with_the_same_bytes(
    training_data: Data, tmp_path: Path
) -> None:
    model = ModelFile(path=str(FILES[ModelFormat.PT2](tmp_path / "upload")), format=ModelFormat.PT2)
    recipe = [ClusterShare(bits=3, recovery=RecoverFinetune(max_steps=6))]
    whole = attempt(tmp_path / "whole", model, recipe, training_data, checkpoint_seconds=1e-9)
    again = attempt(tmp_path / "again", model, recipe, training_data, checkpoints=(whole.checkpoints[2],))

    assert f"going on after update {whole.checkpoints[2].update}" in again.logs
    assert again.sha256 == whole.sha256


def test_elements_keep_sharing_the_values_that_learn(training_data: Data, tmp_path: Path) -> None:
    """Pruned weights stay zero, and every output's values are multiples of the codebook's by one scale."""
    model = ModelFile(path=str(FILES[ModelFormat.PT2](tmp_path / "upload")), format=ModelFormat.PT2)
    recipe = [MagnitudePrune(sparsity=0.5), ClusterShare(bits=3, recovery=RecoverFinetune(max_steps=20))]
    made = attempt(tmp_path / "a", model, recipe, training_data)
    state = torch.export.load(made.artifact).state_dict
    (book,) = {tuple(tensor.flatten().tolist()) for name, tensor in state.items() if name.endswith("codebook")}

    assert 0.0 in book
    assert len(book) <= 8
    pruned = as_compressible(attempt(tmp_path / "b", model, recipe[:1], training_data).open())
    zeros = {layer.name: layer.nonzero for layer in pruned.stored_layers()}
    assert {layer.name: layer.nonzero for layer in made.open().stored_layers()} == zeros


@pytest.mark.parametrize("model_format", [ModelFormat.SAFETENSORS, ModelFormat.TORCH_STATE_DICT])
def test_bare_tensors_do_not_learn(model_format: ModelFormat) -> None:
    assert ClusterShare(recovery=RecoverFinetune()).refusal(model_format)
    assert ClusterShare().refusal(model_format) is None
    assert ClusterShare(recovery=RecoverFinetune()).required() == ("train",)
