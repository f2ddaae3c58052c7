"""An artifact may take other inputs than the original and answer other questions; both are judged on the same rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertModel

from tests import trained
from tests.compression.judging import accuracy
from tests.e2e import tiny_bert
from workers.compression import layers, timing
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.engine import perform
from workers.compression.evaluation import Judgement, judge
from workers.compression.families.model import Model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.torch import huggingface, pt2
from workers.compression.pairing import Pair
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.errors import DatasetMismatch, InvalidResult, NumericalFailure
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Compare, Comparison, Data, DatasetFile, ModelFile
from workers.compression.specs.steps.distill import LogitsDistill
from workers.compression.specs.steps.finetune import HeadFinetune

OpenOnnx = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


class Renamed(nn.Module):
    """The same network, its input called ``x``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def five_classes() -> nn.Module:
    """The trained network, its last layer cut down to the first five classes."""
    whole = trained.trained("mlp")
    head = nn.Linear(128, 5)
    head.load_state_dict({name: values[:5] for name, values in whole[4].state_dict().items()})
    return nn.Sequential(*whole[:4], head).eval()


def as_pt2(network: nn.Module, folder: Path, batch: int | None = None, kind: str = "mlp") -> Model:
    """``network`` exported with input ``x``, with a symbolic batch axis unless a size is given."""
    example = trained.example_input(kind)
    images = example if batch is None else example[:1].repeat(batch, *[1] * (example.ndim - 1))
    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},) if batch is None else None
    path = folder / f"network-{batch}.pt2"
    torch.export.save(torch.export.export(Renamed(network), (images,), dynamic_shapes=shapes), path)
    return pt2.open_model(path, Context(scratch=folder))


def first_five(folder: Path) -> Dataset:
    """The test digits 0 to 4."""
    _, images, _, labels = trained.digits_split()
    np.savez(folder / "five.npz", input=images[labels < 5], target=labels[labels < 5])
    return open_dataset(DatasetFile(path=str(folder / "five.npz"), format=DatasetFormat.NPZ))


def bert_file(folder: Path, *, hidden_states: bool) -> Path:
    """The tiny BERT as a directory archive: with its head, or the bare body."""
    if not hidden_states:
        return tiny_bert.write_directory(folder)
    body: BertModel = tiny_bert.trained_bert().bert
    body.save_pretrained(folder / "body")
    tiny_bert.tokenizer().save(str(folder / "body" / "tokenizer.json"))
    stored_zip(folder / "body", folder / "body.zip")
    return folder / "body.zip"


def clean(upload: Path, folder: Path) -> ModelFile:
    out = folder / upload.stem / "out"
    out.mkdir(parents=True)
    found = huggingface.inspect(upload, out, Context(scratch=folder))
    path = upload if found.clean is None else out.parent / found.clean
    return ModelFile(path=str(path), format=ModelFormat.HUGGINGFACE)


def compared(request: Compare, folder: Path) -> Comparison:
    found = perform(request, folder, Context(scratch=folder))
    assert isinstance(found, Comparison)
    return found


def judged(original: Model, compressed: Model, dataset: Dataset, *, may_change: bool = True) -> Judgement:
    return judge(original, compressed, dataset, np.random.default_rng(0), outputs_may_change=may_change)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_each_side_is_fed_by_its_own_inputs(kind: str, open_onnx: OpenOnnx, digits: Digits, tmp_path: Path) -> None:
    original, rows = open_onnx(kind), digits(kind)
    compressed = as_pt2(trained.trained(kind), tmp_path, kind=kind)
    assert original.inputs[0].name != compressed.inputs[0].name
    found = judged(original, compressed, rows, may_change=False)
    assert found.fidelity is not None
    assert found.fidelity.cosine == pytest.approx(1.0)
    assert found.original.values["accuracy"] == pytest.approx(accuracy(original, rows))
    assert found.compressed.values["accuracy"] == pytest.approx(accuracy(original, rows), abs=0.002)
    assert found.findings == ()


def test_like_models_share_the_very_same_feeds(open_onnx: OpenOnnx, digits: Digits, tmp_path: Path) -> None:
    first, second = open_onnx("mlp"), as_pt2(trained.trained("mlp"), tmp_path)
    alike = next(Pair(first, open_onnx("mlp")).batches(digits("mlp"), 16))
    assert alike.original[0] is alike.compressed[0]
    unlike = next(Pair(first, second).batches(digits("mlp"), 16))
    assert unlike.original[0] is not unlike.compressed[0]
    np.testing.assert_array_equal(unlike.original[0].feeds["input"], unlike.compressed[0].feeds["x"])


def test_unlike_fixed_batch_sizes_see_the_same_rows(digits: Digits, tmp_path: Path) -> None:
    network, rows = trained.trained("mlp"), digits("mlp").limited(50)
    pair = Pair(as_pt2(network, tmp_path, batch=4), as_pt2(network, tmp_path, batch=6))
    assert pair.fixed_rows(rows) == 12
    found = judged(pair.original, pair.compressed, rows)
    assert found.rows == 48
    assert found.fidelity is not None
    assert found.fidelity.cosine == pytest.approx(1.0)
    feeds = pair.feeds(rows, 12)
    assert [len(side) for side in feeds] == [3, 2]
    times = timing.time_side_by_side(pair.original, pair.compressed, feeds, 5)
    assert len(times.original) == len(times.compressed) == 5


def test_other_classes_have_quality_but_no_fidelity(open_onnx: OpenOnnx, tmp_path: Path) -> None:
    rows = first_five(tmp_path)
    found = judged(open_onnx("mlp"), as_pt2(five_classes(), tmp_path), rows)
    assert found.fidelity is None
    assert found.compressed.values["accuracy"] > 0.9
    assert found.original.values == {}, "its classes are not those of the labels"
    assert found.findings[0] == "The artifact answers other classes than the original: fidelity does not apply."
    assert "5 classes apart" in found.findings[1]


def test_an_original_with_too_few_classes_is_not_scored_and_said_so(
    open_onnx: OpenOnnx, digits: Digits, tmp_path: Path
) -> None:
    found = judged(as_pt2(five_classes(), tmp_path), open_onnx("mlp"), digits("mlp"))
    assert found.fidelity is None
    assert found.original.values == {}
    assert found.compressed.values["accuracy"] > 0.9
    assert any("the original cannot be scored" in finding and "class 9" in finding for finding in found.findings)


def test_without_a_step_that_changes_outputs_other_outputs_are_an_error(
    open_onnx: OpenOnnx, digits: Digits, tmp_path: Path
) -> None:
    five = as_pt2(five_classes(), tmp_path)
    with pytest.raises(DatasetMismatch, match="class 9"):
        judged(five, five, digits("mlp"), may_change=False)
    with pytest.raises(InvalidResult, match="leave the outputs' shapes alone"):
        judged(open_onnx("mlp"), five, first_five(tmp_path), may_change=False)


def test_an_artifact_that_cannot_be_scored_is_an_error(open_onnx: OpenOnnx, digits: Digits, tmp_path: Path) -> None:
    five = as_pt2(five_classes(), tmp_path)
    with pytest.raises(DatasetMismatch, match="class 9"):
        judged(open_onnx("mlp"), five, digits("mlp"))
    with pytest.raises(DatasetMismatch, match="class 9"):
        judged(five, five, digits("mlp"))


def test_numbers_gone_wrong_are_found_also_where_fidelity_does_not_apply(open_onnx: OpenOnnx, tmp_path: Path) -> None:
    broken = five_classes()
    broken[4].bias.data[3] = torch.nan
    with pytest.raises(NumericalFailure):
        judged(open_onnx("mlp"), as_pt2(broken, tmp_path), first_five(tmp_path))


def test_hidden_states_become_classes(tmp_path: Path) -> None:
    """The whole measuring task, from files: a body without a head, and the classifier that was made of it."""
    lines = DatasetFile(path=str(tiny_bert.write_lines(tmp_path, rows=60)), format=DatasetFormat.JSONL)
    original = clean(bert_file(tmp_path, hidden_states=True), tmp_path)
    artifact = clean(bert_file(tmp_path, hidden_states=False), tmp_path)
    request = Compare(
        original=original,
        compressed=artifact,
        recipe=(HeadFinetune(),),
        data=Data(evaluation=lines),
        evaluation={"repeats": 5, "batch_sizes": (1, 2)},
    )
    found = compared(request, tmp_path)
    before, after = found.metrics.original, found.metrics.compressed
    assert after.fidelity is None
    assert after.accuracy == pytest.approx(tiny_bert.accuracy(tiny_bert.trained_bert(), rows=60))
    assert set(found.metrics.ratios.latency_by_batch_size or {}) == {"1", "2"}
    assert "fidelity does not apply" in found.findings[0]
    assert before.accuracy is None
    assert "the original cannot be scored" in found.findings[1]


def test_text_reaches_each_side_through_its_own_tokenizer(open_onnx: OpenOnnx, tmp_path: Path) -> None:
    lines = DatasetFile(path=str(tiny_bert.write_lines(tmp_path, rows=20)), format=DatasetFormat.JSONL)
    file = clean(bert_file(tmp_path, hidden_states=False), tmp_path)
    bert = huggingface.open_model(Path(file.path), Context(scratch=tmp_path))
    found = judged(bert, bert, open_dataset(lines))
    assert found.fidelity is not None
    assert found.fidelity.top1_agreement == 1.0
    with pytest.raises(DatasetMismatch):
        judged(bert, open_onnx("mlp"), open_dataset(lines))


def test_layers_are_those_of_a_rebuilt_artifact(open_onnx: OpenOnnx, tmp_path: Path) -> None:
    whole, five = as_pt2(trained.trained("mlp"), tmp_path), as_pt2(five_classes(), tmp_path)
    rows = layers.compare_layers(whole, five, rebuilt=True)
    assert [row.name for row in rows] == [layer.name for layer in five.stored_layers()]
    *kept, head = rows
    assert all(row.sqnr_db is not None for row in kept)
    assert head.sqnr_db is None
    assert 0 < head.bytes_after < head.bytes_before
    other = layers.compare_layers(open_onnx("cnn"), five, rebuilt=True)
    assert [row.name for row in other] == [row.name for row in rows]
    assert {row.bytes_before for row in other} == {0}


def test_weights_without_a_namesake_have_no_fidelity(open_onnx: OpenOnnx, tmp_path: Path) -> None:
    five = as_pt2(five_classes(), tmp_path)
    assert layers.tensor_fidelity(open_onnx("cnn"), five) is None
    same = layers.tensor_fidelity(five, five)
    assert same is not None
    assert same.cosine == pytest.approx(1.0)


def test_a_distilled_student_with_its_own_input_is_timed_too(onnx_file: Callable[[str], Path], tmp_path: Path) -> None:
    as_pt2(trained.trained("mlp"), tmp_path)
    data = DatasetFile(path=str(trained.write_npz("mlp", tmp_path / "digits.npz")), format=DatasetFormat.NPZ)
    request = Compare(
        original=ModelFile(path=str(onnx_file("mlp")), format=ModelFormat.ONNX),
        compressed=ModelFile(path=str(tmp_path / "network-None.pt2"), format=ModelFormat.PT2),
        recipe=(LogitsDistill(),),
        data=Data(evaluation=data),
        evaluation={"repeats": 5, "batch_sizes": (1, 4), "max_samples": 64},
    )
    found = compared(request, tmp_path)
    assert found.metrics.compressed.fidelity is not None
    assert found.metrics.compressed.fidelity.cosine == pytest.approx(1.0)
    assert set(found.metrics.compressed.latency_ms or {}) == {"1", "4"}
    assert found.metrics.original.macs == found.metrics.compressed.macs
