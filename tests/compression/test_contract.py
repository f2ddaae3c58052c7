"""What holds for every technique there is: a new one is covered the moment its spec exists."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertForSequenceClassification

from tests import trained
from tests.compression.techniques.share import siblings
from workers.compression.context import Context
from workers.compression.data import first_feeds, synthetic
from workers.compression.engine import perform
from workers.compression.registry import family, handler_for
from workers.compression.specs.errors import EngineError
from workers.compression.specs.formats import RUNNABLE_FORMATS, DatasetFormat, Family, ModelFormat
from workers.compression.specs.messages import (
    Compare,
    Comparison,
    Compress,
    Compressed,
    Data,
    DatasetFile,
    Event,
    InspectModel,
    ModelFile,
    ModelInspection,
    StepCompleted,
)
from workers.compression.specs.recipe import STEP_CLASSES, STEPS_BY_KEY
from workers.compression.specs.step import Step

PAIRS = [(step, served) for step in STEP_CLASSES for served in step.formats]
IDS = [f"{step.key()}-{served.value}" for step, served in PAIRS]

RUN_IN_FRESH_PROCESS = """
import sys
from pathlib import Path
import numpy as np
from workers.compression.context import Context
from workers.compression.registry import family
from workers.compression.specs.formats import ModelFormat
model = family(ModelFormat(sys.argv[1])).open_model(Path(sys.argv[2]), Context(scratch=Path(sys.argv[3])))
with np.load(sys.argv[4]) as feeds:
    outputs = model.run({name: feeds[name] for name in feeds.files})
np.savez(sys.argv[5], *outputs)
assert not [name for name in sys.modules if name == "app" or name.startswith("app.")]
"""


def tiny_bert(path: Path) -> Path:
    """A two-layer BERT directory: nothing here claims quality for it, only that it survives the round trip."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    state = dict(BertForSequenceClassification(config).state_dict())
    weights = io.BytesIO(safetensors.torch.save(state, metadata={"format": "pt"}))
    with zipfile.ZipFile(path, "w") as archive:
        described = {**config.to_dict(), "architectures": ["BertForSequenceClassification"]}
        archive.writestr("config.json", json.dumps(described))
        archive.writestr("model.safetensors", weights.getvalue())
    return path


def tokens(path: Path) -> Path:
    """Made-up sentences of two kinds; nothing here claims quality for what is learnt from them."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, 120)
    ids = random.integers(1, 100, (120, 12)) + 99 * kinds[:, None]
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids), token_type_ids=np.zeros_like(ids), target=kinds)
    return path


def state_dict(path: Path) -> Path:
    torch.save(trained.trained("mlp").state_dict(), path)
    return path


def tensors_file(path: Path) -> Path:
    safetensors.torch.save_file(dict(trained.trained("mlp").state_dict()), path)
    return path


UPLOADS: dict[ModelFormat, Callable[[Path], Path]] = {
    ModelFormat.ONNX: lambda path: trained.write_onnx("cnn", path),
    ModelFormat.PT2: lambda path: trained.write_pt2("cnn", path),
    ModelFormat.HUGGINGFACE: tiny_bert,
    ModelFormat.SAFETENSORS: tensors_file,
    ModelFormat.TORCH_STATE_DICT: state_dict,
    ModelFormat.SKOPS: lambda path: trained.write_skops(path, trees=10),
}
REPEATING: dict[ModelFormat, Callable[[Path], Path]] = {
    ModelFormat.ONNX: siblings.one_layer_trained_twice,
    ModelFormat.PT2: siblings.program_of_one_layer_twice,
    ModelFormat.HUGGINGFACE: siblings.language_model_with_a_copied_table,
    ModelFormat.SAFETENSORS: siblings.tensors_of_two_models,
    ModelFormat.TORCH_STATE_DICT: siblings.checkpoint_of_two_models,
}
DATA_KINDS = {ModelFormat.ONNX: "cnn", ModelFormat.PT2: "cnn", ModelFormat.SKOPS: "mlp"}


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelFile]:
    """The clean form of a sample model per format, made by the inspection that uploads go through."""

    @cache
    def make(model_format: ModelFormat, *, repeating: bool = False) -> ModelFile:
        folder = tmp_path_factory.mktemp(model_format.value)
        upload = (REPEATING if repeating else UPLOADS)[model_format](folder / "upload")
        inspection = perform(InspectModel(path=str(upload)), folder, Context(scratch=folder))
        assert isinstance(inspection, ModelInspection)
        assert inspection.format is model_format
        clean = folder / inspection.clean if inspection.clean else upload
        return ModelFile(path=str(clean), format=model_format)

    return make


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModelFormat], Data]:
    @cache
    def make(model_format: ModelFormat) -> Data:
        kind = DATA_KINDS.get(model_format)
        folder = tmp_path_factory.mktemp("data")
        if kind is not None:
            path = trained.write_npz(kind, folder / "digits.npz")
        elif model_format is ModelFormat.HUGGINGFACE:
            path = tokens(folder / "tokens.npz")
        else:
            return Data()
        whole = DatasetFile(path=str(path), format=DatasetFormat.NPZ)
        parts = {"calibration": (0.0, 0.2), "train": (0.2, 0.6), "evaluation": (0.6, 1.0)}
        return Data(**{role: whole.model_copy(update={"part": part}) for role, part in parts.items()})

    return make


def compressed_into(folder: Path, model: ModelFile, step: Step, data: Data) -> tuple[Compressed, list[Event]]:
    events: list[Event] = []
    folder.mkdir(exist_ok=True)
    made = perform(
        Compress(model=model, recipe=(step,), data=data), folder, Context(scratch=folder, emit=events.append)
    )
    assert isinstance(made, Compressed)
    return made, events


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("step", STEP_CLASSES, ids=[step.key() for step in STEP_CLASSES])
def test_a_spec_survives_json_and_describes_itself(step: type[Step]) -> None:
    spec = step.model_validate({"technique": step.key().split(".")[0], "method": step.key().split(".")[1]})
    assert step.model_validate_json(spec.model_dump_json()) == spec
    assert step.summary
    assert step.formats
    assert step.families
    assert all(name.split(".")[0] in {key.split(".")[0] for key in STEPS_BY_KEY} for name in step.conflicts)


@pytest.mark.parametrize("step", STEP_CLASSES, ids=[step.key() for step in STEP_CLASSES])
def test_handlers_exist_for_just_the_formats_that_the_spec_names(step: type[Step]) -> None:
    for model_format in ModelFormat:
        if model_format in step.formats:
            assert callable(handler_for(step, model_format))
        else:
            with pytest.raises(EngineError, match="does not serve"):
                handler_for(step, model_format)


@pytest.mark.parametrize(("step", "model_format"), PAIRS, ids=IDS)
def test_the_artifact_is_reproducible_reopens_elsewhere_and_is_reported_from_both_sides(
    step: type[Step],
    model_format: ModelFormat,
    cleaned: Callable[..., ModelFile],
    data: Callable[[ModelFormat], Data],
    tmp_path: Path,
) -> None:
    model = cleaned(model_format, repeating=step.key() in {"share.tie", "share.cross_layer"})
    roles = Data() if step.key() == "share.tie" else data(model_format)
    spec = step.model_validate({})
    first, events = compressed_into(tmp_path / "first", model, spec, roles)
    second, _ = compressed_into(tmp_path / "second", model, spec, roles)
    artifact = tmp_path / "first" / first.path
    assert sha256(artifact) == sha256(tmp_path / "second" / second.path)
    assert [event.outcome.step for event in events if isinstance(event, StepCompleted)] == ["recipe/0"]
    assert first.steps[0].changed != "done", "the handler says what it did"
    assert first.layers

    stored = ModelFile(path=str(artifact), format=first.format)
    comparison = perform(
        Compare(original=model, compressed=stored, recipe=(spec,), data=roles, evaluation=QUICK),
        tmp_path,
        Context(scratch=tmp_path),
    )
    assert isinstance(comparison, Comparison)
    metrics = comparison.metrics
    assert metrics.original.size_bytes > 0
    assert metrics.compressed.fidelity is not None
    assert metrics.ratios.size == pytest.approx(metrics.original.size_bytes / metrics.compressed.size_bytes)
    if model_format in RUNNABLE_FORMATS:
        assert_predicts_the_same_in_a_fresh_process(stored, tmp_path)


QUICK: Any = {"repeats": 5, "batch_sizes": (1,), "max_samples": 64}


def assert_predicts_the_same_in_a_fresh_process(stored: ModelFile, folder: Path) -> None:
    model = family(stored.format).open_model(Path(stored.path), Context(scratch=folder))
    feeds = first_feeds(synthetic(model.inputs, 4, 0, {}), model.inputs, None, 4)
    here = model.run(feeds)
    np.savez(folder / "feeds.npz", **feeds)
    files = (stored.path, str(folder), str(folder / "feeds.npz"), str(folder / "outputs.npz"))
    script = [sys.executable, "-c", RUN_IN_FRESH_PROCESS, stored.format.value, *files]
    subprocess.run(script, check=True, cwd=folder)
    with np.load(folder / "outputs.npz") as there:
        for expected, name in zip(here, there.files, strict=True):
            np.testing.assert_allclose(there[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", STEP_CLASSES, ids=[step.key() for step in STEP_CLASSES])
def test_every_technique_serves_a_family_of_its_formats(step: type[Step]) -> None:
    networks = {ModelFormat.ONNX, ModelFormat.PT2, ModelFormat.HUGGINGFACE}
    if networks & set(step.formats):
        assert Family.NEURAL_NETWORK in step.families
    if ModelFormat.SKOPS in step.formats:
        assert Family.TREE_ENSEMBLE in step.families
