from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.compression.judging import accuracy
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.errors import ConstraintInfeasible, NumericalFailure, UnsupportedTechnique
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.techniques.prune.structured.onnx import prune_graph

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


@pytest.fixture
def prune(open_onnx: Open, digits: Digits, tmp_path: Path) -> Callable[..., OnnxModel]:
    """The trained network with some units less."""

    def pruned(kind: str, **fields: object) -> OnnxModel:
        context = Context(scratch=tmp_path, calibration=digits(kind, train=True))
        model = prune_graph(open_onnx(kind), StructuredPrune.model_validate(fields), context)
        assert isinstance(model, OnnxModel)
        return model

    return pruned


def widths(model: OnnxModel) -> dict[str, int]:
    return {weight.name: weight.matrix_shape[0] for weight in model.weights()}


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
@pytest.mark.parametrize("importance", ["magnitude", "activations", "taylor"])
def test_the_artifact_is_a_smaller_ordinary_model_that_still_knows_the_digits(
    kind: str, importance: str, prune: Callable[..., OnnxModel], open_onnx: Open, digits: Digits, tmp_path: Path
) -> None:
    before, rows = open_onnx(kind), digits(kind)
    feeds = first_feeds(rows, before.inputs, None, 1)

    after = prune(kind, macs=0.4, importance=importance)

    after.save(tmp_path / "smaller.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "smaller.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "smaller.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, dict(feeds))[0], after.run(feeds)[0], rtol=1e-5, atol=1e-5)
    assert (after.macs(feeds) or 0) <= 0.6 * (before.macs(feeds) or 0)
    assert after.proto.ByteSize() < 0.8 * before.proto.ByteSize()
    assert {operator.op_type for operator in after.proto.graph.node} == {
        operator.op_type for operator in before.proto.graph.node
    }
    assert accuracy(after, rows) > accuracy(before, rows) - 0.02


def test_fitting_what_stays_loses_less_than_leaving_it(prune: Callable[..., OnnxModel], digits: Digits) -> None:
    left, fitted = (
        accuracy(prune("cnn", macs=0.6, importance="magnitude", compensate=compensate), digits("cnn"))
        for compensate in (False, True)
    )

    assert fitted > left


def test_channels_stay_in_multiples_and_no_layer_vanishes(prune: Callable[..., OnnxModel]) -> None:
    left = widths(prune("cnn", macs=0.7, round_to=8, least=0.25))

    assert [width % 8 for width in left.values()] == [0, 0, 0, 2]
    assert all(width >= 8 for width in list(left.values())[:3])


def test_a_share_of_units_is_counted_in_units(prune: Callable[..., OnnxModel]) -> None:
    left = widths(prune("mlp", sparsity=0.5, round_to=1, scope="layer"))

    assert list(left.values()) == [128, 64, 10]


def test_as_many_units_go_as_a_tolerated_drop_allows(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    whole = digits("cnn")
    selection, confirmation, others = (
        replace(whole, order=whole.order[start : start + 240]) for start in (0, 240, 480)
    )
    spec = StructuredPrune(max_drop=0.02, round_to=4)
    assert spec.macs is None
    assert spec.required() == ("calibration", "selection")
    context = Context(
        scratch=tmp_path, calibration=digits("cnn", train=True), selection=selection, confirmation=confirmation
    )
    before = open_onnx("cnn")

    after = prune_graph(open_onnx("cnn"), spec, context)

    found = context.found
    assert found is not None
    assert found.confirmed
    assert found.selection.drop <= 0.02
    units = sum(list(widths(before).values())[:-1])
    assert found.sparsity == pytest.approx(1 - sum(list(widths(after).values())[:-1]) / units)
    assert found.sparsity > 0.4
    assert accuracy(after, others) > accuracy(before, others) - 0.04


def test_targets_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give one of"):
        StructuredPrune(macs=0.4, max_drop=0.01)


def test_the_loss_of_labels_is_for_gradients() -> None:
    assert StructuredPrune(importance="taylor", loss="labels").required() == ("calibration", "labels")
    with pytest.raises(ValueError, match="taylor"):
        StructuredPrune(loss="labels")


def test_layers_that_are_excluded_keep_their_channels(prune: Callable[..., OnnxModel], open_onnx: Open) -> None:
    name = next(iter(widths(open_onnx("cnn"))))

    left = widths(prune("cnn", macs=0.2, exclude=(name,)))

    assert left[name] == 32
    assert sum(left.values()) < 32 + 64 + 64 + 10


def test_what_cannot_be_removed_is_refused_with_what_can(prune: Callable[..., OnnxModel]) -> None:
    with pytest.raises(ConstraintInfeasible, match=r"at most [0-9.]+% can be removed"):
        prune("cnn", macs=0.99, least=0.5)
    with pytest.raises(UnsupportedTechnique, match="No channels"):
        prune("cnn", what=("heads",))


def test_weights_that_are_no_numbers_are_refused_by_name(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    model = open_onnx("mlp")
    tensor = next(found for found in model.proto.graph.initializer if len(found.dims) == 2)
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.changed()

    with pytest.raises(NumericalFailure, match="NaN"):
        prune_graph(model, StructuredPrune(), Context(scratch=tmp_path, calibration=digits("mlp", train=True)))
