"""Sensitivities: measured right, alike each time, not measured twice, and gone on with after a loss."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import trained
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.quantization.rounding import quantize_matrix
from workers.compression.sensitivity.measuring import blocks_of, candidates
from workers.compression.specs.errors import NumericalFailure, UnsupportedTechnique
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import Analyze, Analyzed, Checkpoint, Data, DatasetFile, Event, ModelFile
from workers.compression.specs.sensitivity import SensitivityOptions

MODEL, ROWS = "a" * 64, "b" * 64
OPTIONS = SensitivityOptions(bits=(2, 4, 8), algorithm="rtn", sensitivity_samples=48)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained.write_npz("mlp", tmp_path_factory.mktemp("rows") / "rows.npz", train=True)


def request(onnx_file: Callable[[str], Path], rows: Path | None, **fields: object) -> Analyze:
    data = Data(calibration=DatasetFile(path=str(rows), format=DatasetFormat.NPZ, sha256=ROWS)) if rows else Data()
    model = ModelFile(path=str(onnx_file("mlp")), format=ModelFormat.ONNX, sha256=MODEL)
    return Analyze(model=model, options=fields.pop("options", OPTIONS), data=data, **fields)  # type: ignore[arg-type]


def analyzed(asked: Analyze, folder: Path, emit: Callable[[Event], None] = lambda event: None) -> Analyzed:
    found = perform(asked, folder, Context(scratch=folder, emit=emit))
    assert isinstance(found, Analyzed)
    return found


def test_the_error_is_that_of_the_outputs_with_one_weight_rounded(
    onnx_file: Callable[[str], Path], open_onnx: Callable[[str], OnnxModel], rows_file: Path, tmp_path: Path
) -> None:
    found = analyzed(request(onnx_file, rows_file), tmp_path)
    assert (found.sensitivity.rows, found.reused) == (48, False)
    model = open_onnx("mlp")
    weight = candidates(model, OPTIONS)[1]
    rounded = quantize_matrix(
        model.matrix(weight),
        algorithm="rtn",
        bits=2,
        scheme="affine",
        blocks=blocks_of(weight, OPTIONS),
        range="mse",
    )
    images = trained.digits_split()[0]
    before = model.run({"input": images})[0]
    model.replace([(weight, rounded.restored())])
    error = model.run({"input": images})[0] - before
    expected = float(np.sum(np.square(error)) / np.sum(np.square(before)))
    option = found.sensitivity.of(weight.name)[2]
    assert option.error == pytest.approx(expected, rel=0.25)
    assert found.sensitivity.loss == pytest.approx(0.0, abs=0.05)
    assert option.loss is not None
    assert option.loss >= found.sensitivity.loss
    layer = next(row for row in found.layers if row.name == weight.layer)
    assert layer.sensitivity == found.sensitivity.of(weight.name)[4].error
    assert layer.bytes_before == layer.bytes_after


def test_the_same_request_has_the_same_answer(
    onnx_file: Callable[[str], Path], rows_file: Path, tmp_path: Path
) -> None:
    first, second = (analyzed(request(onnx_file, rows_file), tmp_path) for _ in range(2))
    assert first.sensitivity == second.sensitivity


def test_what_is_known_is_not_measured_again(onnx_file: Callable[[str], Path], rows_file: Path, tmp_path: Path) -> None:
    first = analyzed(request(onnx_file, rows_file), tmp_path).sensitivity
    changed = json.loads(first.model_dump_json())
    changed["weights"][0]["options"][0]["error"] = 0.123
    known = type(first).model_validate(changed)
    again = analyzed(request(onnx_file, rows_file, sensitivities=(known,)), tmp_path)
    assert again.reused
    assert again.sensitivity == known
    more = OPTIONS.model_copy(update={"bits": (2, 3)})
    added = analyzed(request(onnx_file, rows_file, options=more, sensitivities=(known,)), tmp_path)
    assert not added.reused
    assert [option.bits for option in added.sensitivity.weights[0].options] == [2, 3, 4, 8]
    assert added.sensitivity.weights[0].options[0].error == 0.123


@pytest.mark.parametrize("change", [{"group_size": 64}, {"algorithm": "hqq"}, {"sensitivity_samples": 16}])
def test_what_was_measured_otherwise_is_not_taken(
    onnx_file: Callable[[str], Path], rows_file: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    options = OPTIONS.model_copy(update={"bits": (2,)})
    known = analyzed(request(onnx_file, rows_file, options=options), tmp_path).sensitivity
    for asked in (
        request(onnx_file, rows_file, options=options.model_copy(update=change), sensitivities=(known,)),
        request(onnx_file, None, options=options, sensitivities=(known,)),
        request(onnx_file, rows_file, options=options, sensitivities=(known,), seed=1),
    ):
        assert not analyzed(asked, tmp_path).reused


def test_a_measurement_that_was_cut_off_goes_on_where_it_stood(
    onnx_file: Callable[[str], Path], rows_file: Path, tmp_path: Path
) -> None:
    whole = analyzed(request(onnx_file, rows_file), tmp_path)
    events: list[Event] = []
    analyzed(request(onnx_file, rows_file, checkpoint_seconds=1e-9), tmp_path, events.append)
    written = [event.checkpoint for event in events if event.type == "checkpoint"]
    assert [checkpoint.update for checkpoint in written] == [3, 6, 9, 9]
    first = Checkpoint(step=written[0].step, path=str(tmp_path / written[0].path), update=3)
    events.clear()
    resumed = analyzed(request(onnx_file, rows_file, checkpoints=(first,)), tmp_path, events.append)
    assert resumed.sensitivity == whole.sensitivity
    assert len([event for event in events if event.type == "metric"]) == 2
    first_file = Path(first.path)
    first_file.write_text("{")
    spoilt = analyzed(request(onnx_file, rows_file, checkpoints=(first,)), tmp_path)
    assert spoilt.sensitivity == whole.sensitivity
    assert "measured again" in spoilt.warnings[0]


def test_weights_that_are_no_numbers_are_named(open_onnx: Callable[[str], OnnxModel], tmp_path: Path) -> None:
    model = open_onnx("mlp")
    weight = model.weights()[1]
    values = np.array(model.matrix(weight))
    values[0, 0] = np.nan
    model.replace([(weight, values)])
    model.save(tmp_path / "nan.onnx")
    asked = Analyze(
        model=ModelFile(path=str(tmp_path / "nan.onnx"), format=ModelFormat.ONNX, sha256=MODEL), options=OPTIONS
    )
    with pytest.raises(NumericalFailure, match=weight.layer):
        analyzed(asked, tmp_path)


def test_a_selection_of_nothing_is_refused(onnx_file: Callable[[str], Path], tmp_path: Path) -> None:
    nothing = OPTIONS.model_copy(update={"include": ("nothing",)})
    with pytest.raises(UnsupportedTechnique):
        analyzed(request(onnx_file, None, options=nothing), tmp_path)
