"""Static quantization whose range is chosen on selection rows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import trained
from tests.compression.judging import logits
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.families.model import Array, Model
from workers.compression.families.onnx.family import open_model as open_onnx
from workers.compression.families.torch.pt2 import open_model as open_pt2
from workers.compression.registry import handler_for
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.job import Evaluation
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.techniques.quantize.static.choosing import CANDIDATES
from workers.compression.tolerance.drops import JudgingRows

Digits = Callable[..., Dataset]
FORMATS = [ModelFormat.ONNX, ModelFormat.PT2]


def fresh(model_format: ModelFormat, folder: Path) -> Model:
    if model_format is ModelFormat.ONNX:
        return open_onnx(trained.write_onnx("mlp", folder / "mlp.onnx"), Context(scratch=folder))
    return open_pt2(trained.write_pt2("mlp", folder / "mlp.pt2"), Context(scratch=folder))


def with_one_odd_pixel(folder: Path) -> Dataset:
    """Calibration rows, one pixel of the last one thirty times as bright: the rows that check the budget lack it."""
    images = trained.digits_split()[0].copy()
    rows = stored(images, folder / "plain.npz")
    images[rows.order[-1], 27] *= 30.0
    return stored(images, folder / "odd.npz")


def stored(images: Array, path: Path) -> Dataset:
    np.savez(path, input=images)
    return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.NPZ))


def quantized(model_format: ModelFormat, step: StaticQuantize, context: Context) -> Model:
    model: Model = handler_for(StaticQuantize, model_format)(fresh(model_format, context.scratch), step, context)
    return model


@pytest.mark.parametrize("model_format", FORMATS)
def test_the_range_is_kept_that_does_best_on_selection_rows(
    model_format: ModelFormat, digits: Digits, tmp_path: Path
) -> None:
    rows = digits("mlp")
    selection, confirmation = rows.parts(0.5)
    context = Context(
        scratch=tmp_path,
        calibration=with_one_odd_pixel(tmp_path),
        selection=selection,
        confirmation=confirmation,
        evaluation=Evaluation(metric="fidelity"),
    )
    original = fresh(model_format, tmp_path)
    judging = JudgingRows(original, original.run, selection, "fidelity")
    made = {name: quantized(model_format, StaticQuantize(range=name, samples=2000), context) for name in CANDIDATES}
    drops = {name: judging.drop(model.run).value for name, model in made.items()}
    best = min(drops, key=drops.__getitem__)
    context.changes.clear()

    chosen = quantized(model_format, StaticQuantize(range="auto", samples=2000), context)

    assert best != "minmax"
    assert drops[best] < 0.5 * drops["minmax"]
    np.testing.assert_array_equal(logits(chosen, rows), logits(made[best], rows))
    assert any(f"range {best} chosen" in change for change in context.changes)
    assert sum("layers" in change for change in context.changes) == 1, "what was not kept is not reported"


@pytest.mark.parametrize("model_format", FORMATS)
def test_without_rows_to_choose_by_it_says_so(model_format: ModelFormat, digits: Digits, tmp_path: Path) -> None:
    context = Context(scratch=tmp_path, calibration=digits("mlp", train=True))

    with pytest.raises(DatasetMismatch, match="rows to choose"):
        quantized(model_format, StaticQuantize(range="auto"), context)


def test_only_a_range_to_be_chosen_takes_rows_away() -> None:
    assert "selection" in StaticQuantize(range="auto").required()
    assert "selection" not in StaticQuantize().required()
