from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.compression.judging import accuracy
from tests.hostile import onnx_graphs
from workers.compression.context import Context
from workers.compression.data import Dataset
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.float_weights import float_weights
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.walking import Index, array
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.prune_weights import MagnitudePrune
from workers.compression.techniques.prune.magnitude import prune_by_magnitude

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def zeros_and_sizes(model: OnnxModel) -> list[tuple[int, int]]:
    arrays = [array(weight.tensor) for weight in float_weights(Index.of(model.proto))]
    return [(values.size - np.count_nonzero(values), values.size) for values in arrays]


def pruned(model: OnnxModel, folder: Path, **fields: object) -> OnnxModel:
    result = prune_by_magnitude(model, MagnitudePrune(**fields), Context(scratch=folder))
    assert isinstance(result, OnnxModel)
    return result


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.87])
def test_the_share_of_zeros_is_exact_over_all_layers(sparsity: float, open_onnx: Open, tmp_path: Path) -> None:
    counts = zeros_and_sizes(pruned(open_onnx("cnn"), tmp_path, sparsity=sparsity))

    assert sum(zeros for zeros, _ in counts) == round(sparsity * sum(size for _, size in counts))


def test_the_share_of_zeros_is_exact_in_each_layer(open_onnx: Open, tmp_path: Path) -> None:
    counts = zeros_and_sizes(pruned(open_onnx("cnn"), tmp_path, sparsity=0.6, scope="layer"))

    assert all(zeros == round(0.6 * size) for zeros, size in counts)


def test_global_pruning_removes_no_weight_larger_than_one_it_keeps(open_onnx: Open, tmp_path: Path) -> None:
    before = [array(weight.tensor).copy() for weight in float_weights(Index.of(open_onnx("mlp").proto))]
    after = [array(weight.tensor) for weight in float_weights(Index.of(pruned(open_onnx("mlp"), tmp_path).proto))]

    removed = np.concatenate([np.abs(old[new == 0]) for old, new in zip(before, after, strict=True)])
    kept = np.concatenate([np.abs(new[new != 0]) for new in after])
    assert removed.max() <= kept.min()


def test_half_the_weights_of_a_perceptron_can_go(open_onnx: Open, digits: Digits, tmp_path: Path) -> None:
    original, rows = open_onnx("mlp"), digits("mlp")

    assert accuracy(pruned(open_onnx("mlp"), tmp_path), rows) > accuracy(original, rows) - 0.02


def test_biases_and_norms_stay(open_onnx: Open, tmp_path: Path) -> None:
    def vectors(model: OnnxModel) -> list[bytes]:
        return [tensor.SerializeToString() for tensor in Index.of(model.proto).stored.values() if len(tensor.dims) == 1]

    assert vectors(pruned(open_onnx("cnn"), tmp_path, sparsity=0.9)) == vectors(open_onnx("cnn"))


@pytest.mark.parametrize("make", [onnx_graphs.weights_in_an_if_branch, onnx_graphs.weights_in_constant_nodes])
def test_weights_are_found_wherever_they_are_stored(make: Callable[[Path], bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make(tmp_path))

    counts = zeros_and_sizes(pruned(open_model(path, Context(scratch=tmp_path)), tmp_path))

    assert counts
    assert sum(zeros for zeros, _ in counts) >= round(0.5 * sum(size for _, size in counts))


def test_excluded_layers_stay(open_onnx: Open, tmp_path: Path) -> None:
    names = [weight.layer for weight in float_weights(Index.of(open_onnx("mlp").proto))]
    counts = zeros_and_sizes(pruned(open_onnx("mlp"), tmp_path, exclude=(names[0],)))

    assert counts[0][0] < counts[0][1] * 0.01
    assert sum(zeros for zeros, _ in counts[1:]) > 0


def test_a_selection_of_nothing_is_refused(open_onnx: Open, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTechnique, match="None of the model's"):
        pruned(open_onnx("mlp"), tmp_path, include=("no such layer",))
