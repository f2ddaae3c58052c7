"""Mixed precision: budgets are kept by the stored file and by measured outputs, and no other choice is better."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests import trained
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.weights import CompressibleModel
from workers.compression.quantization.allocation import Option, least_error
from workers.compression.registry import family
from workers.compression.sensitivity.measuring import candidates
from workers.compression.sensitivity.measuring import quantized as rounded_to
from workers.compression.sensitivity.survey import Survey
from workers.compression.specs.errors import ConstraintInfeasible, DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Event
from workers.compression.specs.sensitivity import SensitivityMap, SensitivityOptions
from workers.compression.specs.steps.quantize_weights import MixedQuantize
from workers.compression.techniques.quantize.mixed import quantize_mixed

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def context(folder: Path, digits: Digits, kind: str = "mlp", emit: Callable[[Event], None] | None = None) -> Context:
    made = Context(scratch=folder, calibration=digits(kind, train=True), step="recipe/0")
    made.emit = emit or made.emit
    return made


def outputs(model: CompressibleModel, kind: str) -> np.ndarray:
    images = trained.digits_split()[1]
    return np.asarray(model.run({"input": images if kind == "mlp" else images.reshape(-1, 1, 8, 8)})[0])


def stored_bits(model: CompressibleModel, layers: set[str]) -> tuple[float, int]:
    """Bits of the layers as stored, biases of float32 taken off, and how many weights that are."""
    rows = [layer for layer in model.stored_layers() if layer.name in layers]
    biases = {"node_linear": 256, "node_linear_1": 128, "node_linear_2": 10}
    bits = sum(8 * layer.bytes - 32 * biases[layer.name] for layer in rows)
    return bits, sum(layer.parameters - biases[layer.name] for layer in rows)


@pytest.mark.parametrize("average", [3.0, 4.2, 6.5])
def test_the_file_keeps_the_budget_metadata_counted(
    open_onnx: Open, digits: Digits, tmp_path: Path, average: float
) -> None:
    model = open_onnx("mlp")
    layers = {weight.layer for weight in model.weights()}
    told = context(tmp_path, digits)
    quantize_mixed(model, MixedQuantize(average_bits=average, algorithm="rtn"), told)
    bits, weights = stored_bits(model, layers)
    assert average - 0.8 < bits / weights <= average
    assert told.changes[0].startswith(f"bits per weight {bits / weights:.2f}: ")
    model.save(tmp_path / "made.onnx")
    again = family(ModelFormat.ONNX).open_model(tmp_path / "made.onnx", Context(scratch=tmp_path))
    np.testing.assert_allclose(outputs(again, "mlp"), outputs(model, "mlp"), rtol=1e-5, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [0.05, 0.001])
def test_the_error_allowed_is_the_error_measured(open_onnx: Open, digits: Digits, tmp_path: Path, most: float) -> None:
    model, original = open_onnx("cnn"), open_onnx("cnn")
    spec = MixedQuantize(max_error=most, algorithm="rtn", sensitivity_samples=64)
    quantize_mixed(model, spec, context(tmp_path, digits, "cnn"))
    (batch,) = digits("cnn", train=True).limited(64).batches(model.inputs, 64, None)
    before, after = (found.run(batch.feeds)[0] for found in (original, model))
    error = float(np.sum(np.square(after - before)) / np.sum(np.square(before)))  # type: ignore[operator]
    assert error <= most * 1.01
    assert error > most / 40


def test_what_cannot_be_kept_says_what_can(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(ConstraintInfeasible, match=r"4\.62 per weight") as small:
        quantize_mixed(open_onnx("mlp"), MixedQuantize(bits=(4, 8), average_bits=4.0), context(tmp_path, digits))
    assert small.value.hint
    with pytest.raises(ConstraintInfeasible, match="at most 1e-12 is wanted"):
        quantize_mixed(open_onnx("mlp"), MixedQuantize(bits=(4, 8), max_error=1e-12), context(tmp_path, digits))


def test_a_prediction_that_fails_is_repaired_until_the_measurement_agrees(
    open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    """Sensitivities that are far too small stand for a model in which errors do not add up."""
    options = SensitivityOptions(algorithm="rtn")
    told = context(tmp_path, digits)
    model = open_onnx("mlp")
    known = known_map(model, options, told, digits)
    too_small = scaled(known, {weight.name: 1 / 50 for weight in model.weights()})
    told.sensitivities.maps = (too_small,)
    lines: list[str] = []
    told.emit = lambda event: lines.append(getattr(event, "message", ""))
    quantize_mixed(model, MixedQuantize(max_error=0.004, algorithm="rtn"), told)
    assert any("reused" in line for line in lines)
    assert any("has to be better" in line for line in lines)
    measured = [line for line in lines if line.startswith("relative squared error")][-1]
    assert float(measured.split(": ")[1].split()[0]) <= 0.004
    model = open_onnx("mlp")
    quantize_mixed(model, MixedQuantize(average_bits=3.5, algorithm="rtn"), told)
    assert any("do not simply add up" in warning for warning in told.warnings)


def known_map(model: OnnxModel, options: SensitivityOptions, told: Context, digits: Digits) -> SensitivityMap:
    """What ``told`` will know of the model from now on."""
    told.sensitivities.model = told.sensitivities.data = "a" * 64
    weights = candidates(model, options)
    with Survey(model, weights, options, digits("mlp", train=True), told) as survey:
        return survey.sensitivities({weight.name: options.bits for weight in weights})


def scaled(found: SensitivityMap, factors: dict[str, float]) -> SensitivityMap:
    """The same with errors multiplied by the factor of their weight."""
    weights = []
    for weight in found.weights:
        factor = factors.get(weight.name, 1.0)
        options = tuple(o.model_copy(update={"error": o.error * factor}) for o in weight.options)
        weights.append(weight.model_copy(update={"options": options}))
    return found.model_copy(update={"weights": tuple(weights)})


def greedy(layers: list[list[Option]], budget: float) -> float:
    levels = [0] * len(layers)
    while True:
        spent = sum(options[level].cost for options, level in zip(layers, levels, strict=True))
        steps = [
            ((now.error - then.error) / (then.cost - now.cost), index)
            for index, (options, level) in enumerate(zip(layers, levels, strict=True))
            if level + 1 < len(options)
            for now, then in [(options[level], options[level + 1])]
            if spent + then.cost - now.cost <= budget
        ]
        if not steps:
            return sum(options[level].error for options, level in zip(layers, levels, strict=True))
        levels[max(steps)[1]] += 1


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_no_other_choice_of_a_real_model_is_predicted_to_err_less(
    open_onnx: Open, digits: Digits, tmp_path: Path, kind: str
) -> None:
    model, options = open_onnx(kind), SensitivityOptions(algorithm="rtn")
    weights = candidates(model, options)
    with Survey(model, weights, options, digits(kind, train=True), context(tmp_path, digits, kind)) as survey:
        found = survey.sensitivities({weight.name: options.bits for weight in weights})
    layers = [
        [
            Option(bits, model.stored_bits(weight, rounded_to(model, weight, bits, options, None)), option.error)
            for bits, option in found.of(weight.name).items()
        ]
        for weight in weights
    ]
    better = 0
    for level, bits in enumerate(options.bits):
        uniform = [layer[level] for layer in layers]
        for room in (1.0, 1.1, 1.3):
            budget = room * sum(option.cost for option in uniform)
            best = least_error(layers, budget)
            assert best.cost <= budget
            assert best.error <= sum(option.error for option in uniform) * (1 + 1e-9), bits
            assert best.error <= greedy(layers, budget) * (1 + 1e-9), bits
            better += best.error < 0.999 * greedy(layers, budget)
    assert better


def test_bits_go_to_what_is_known_to_be_sensitive_and_excluded_layers_stay(
    open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    model, options = open_onnx("mlp"), SensitivityOptions(algorithm="rtn", bits=(2, 3, 4, 5, 8))
    first, second, last = model.weights()
    told = context(tmp_path, digits)
    known = known_map(model, options, told, digits)
    told.sensitivities.maps = (scaled(known, {first.name: 1e6}),)
    spec = MixedQuantize(average_bits=4.0, exclude=(last.name,), algorithm="rtn", bits=options.bits)
    quantize_mixed(model, spec, told)
    by_name = {layer.name: layer for layer in model.stored_layers()}
    assert by_name[first.layer].bits > 5.0
    assert by_name[second.layer].bits < 4.0
    assert by_name[last.layer].bits == 32.0


def test_without_data_or_weights_it_is_refused(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    with pytest.raises(DatasetMismatch):
        quantize_mixed(open_onnx("mlp"), MixedQuantize(), Context(scratch=tmp_path))
    with pytest.raises(UnsupportedTechnique, match="selected"):
        quantize_mixed(open_onnx("mlp"), MixedQuantize(include=("nothing",)), context(tmp_path, digits))
