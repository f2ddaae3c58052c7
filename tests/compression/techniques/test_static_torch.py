from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import trained
from tests.compression.judging import accuracy, cosine, logits
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds
from workers.compression.families.torch.pt2 import open_model
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.quantize import StaticQuantize
from workers.compression.techniques.quantize.static import torch as static

Digits = Callable[..., Dataset]


def original(kind: str, folder: Path) -> Pt2Model:
    return open_model(trained.write_pt2(kind, folder / f"{kind}.pt2"), Context(scratch=folder))


def quantized(kind: str, digits: Digits, folder: Path, context: Context | None = None, **fields: object) -> Pt2Model:
    context = context or Context(scratch=folder)
    context.calibration = digits(kind, train=True)
    made = static.quantize_statically(original(kind, folder), StaticQuantize(samples=128, **fields), context)
    assert isinstance(made, Pt2Model)
    return made


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_programs_keep_their_accuracy_with_integer_weights_and_rounded_inputs(
    kind: str, granularity: str, digits: Digits, tmp_path: Path
) -> None:
    before, rows = original(kind, tmp_path), digits(kind)

    after = quantized(kind, digits, tmp_path, granularity=granularity)

    after.save(tmp_path / "small.pt2")
    assert (tmp_path / "small.pt2").stat().st_size < 0.4 * before.size_bytes()
    assert cosine(logits(before, rows), logits(after, rows)) > 0.9999
    assert accuracy(after, rows) > accuracy(before, rows) - 0.01


def test_torch_alone_opens_the_file_and_agrees_to_the_last_bit(digits: Digits, tmp_path: Path) -> None:
    made = quantized("cnn", digits, tmp_path)
    made.save(tmp_path / "small.pt2")
    feeds = first_feeds(digits("cnn"), made.inputs, None, 16)

    program = torch.export.load(tmp_path / "small.pt2")

    with torch.inference_mode():
        output = program.module()(torch.from_numpy(next(iter(feeds.values()))))
    np.testing.assert_array_equal(output.numpy(), made.run(feeds)[0])
    operators = [str(node.target) for node in program.graph.nodes]
    assert operators.count("aten.fake_quantize_per_tensor_affine.default") == 4
    assert not any("batch_norm" in name for name in operators)


def test_adaptive_rounding_and_corrected_biases_move_the_outputs_less(digits: Digits, tmp_path: Path) -> None:
    rows, exact = digits("cnn"), logits(original("cnn", tmp_path), digits("cnn"))

    plain, careful = (
        logits(quantized("cnn", digits, tmp_path, rounding=rounding, bias_correction=corrects), rows)
        for rounding, corrects in (("nearest", False), ("adaptive", True))
    )

    assert np.square(careful - exact).sum() < 0.8 * np.square(plain - exact).sum()


def test_layers_that_break_the_budget_keep_float_inputs_and_are_told(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "OUTPUT_BUDGET_DB", 56.0)
    context = Context(scratch=tmp_path)

    made = quantized("cnn", digits, tmp_path, context)

    assert any("keep float inputs" in warning for warning in context.warnings)
    assert cosine(logits(original("cnn", tmp_path), digits("cnn")), logits(made, digits("cnn"))) > 0.9999


def test_where_no_layer_keeps_the_budget_nothing_is_delivered(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static, "OUTPUT_BUDGET_DB", 300.0)

    with pytest.raises(UnsupportedTechnique, match="within 300 dB"):
        quantized("mlp", digits, tmp_path)


def test_globs_leave_layers_float(digits: Digits, tmp_path: Path) -> None:
    first = original("mlp", tmp_path).weights()[0]

    made = quantized("mlp", digits, tmp_path, exclude=(first.layer,))

    assert first.name in {weight.name for weight in made.weights()}
    assert len(made.weights()) == 1
