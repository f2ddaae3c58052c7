"""ONNX models learn, and their files hold what they learned."""

import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from app.cli.zoo import fetch
from tests import trained
from tests.compression.families.onnx.graphs import check, graph_of, outputs_of, run_both, trainable_of
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.families.onnx.training.adapter import TrainableOnnx, trainable_model
from workers.compression.families.trainable import Trainable, as_trainable
from workers.compression.specs.errors import NumericalFailure

RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module", params=["mlp", "cnn"])
def digits(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    path = tmp_path_factory.mktemp("digits") / "model.onnx"
    return request.param, trained.write_onnx(request.param, path).read_bytes()


def untrained(source: bytes) -> TrainableOnnx:
    model = as_trainable(OnnxModel(onnx.load_from_string(source)))
    assert isinstance(model, TrainableOnnx)
    return model.with_head(tuple("0123456789"), seed=1)


def learn(found: Trainable, kind: str, updates: int = 20) -> tuple[float, float]:
    """Loss before and after updates on one batch of digits."""
    images, _, labels, _ = trained.digits_split()
    rows = torch.from_numpy(images[:128] if kind == "mlp" else images[:128].reshape(-1, 1, 8, 8))
    targets = torch.from_numpy(labels[:128])
    optimizer = torch.optim.AdamW(found.module.parameters(), lr=1e-3)
    found.module.train()
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(found.module(rows)[0], targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def test_digits_are_learned_and_the_file_answers_as_the_module(digits: tuple[str, bytes], tmp_path: Path) -> None:
    kind, source = digits
    model = untrained(source)
    found = model.trainable()

    before, after = learn(found, kind)
    model.adopt(found)

    assert after < before / 2
    check(model.proto)
    feeds = {"input": trained.example_input(kind).numpy()}
    model.save(tmp_path / "learned.onnx")
    saved = OnnxModel(onnx.load(tmp_path / "learned.onnx"))
    np.testing.assert_allclose(outputs_of(found.module.eval(), feeds)[0], saved.run(feeds)[0], rtol=1e-4, atol=1e-5)


def test_the_same_training_gives_the_same_bytes(digits: tuple[str, bytes]) -> None:
    kind, source = digits
    files = []
    for _ in range(2):
        model = untrained(source)
        found = model.trainable()
        learn(found, kind, updates=3)
        model.adopt(found)
        files.append(model.serialized())

    assert files[0] == files[1]


def test_reading_a_model_for_training_leaves_it_as_it_is(digits: tuple[str, bytes]) -> None:
    kind, source = digits
    model = OnnxModel(onnx.load_from_string(source))
    before = model.serialized()

    learn(as_trainable(model).trainable(), kind, updates=1)

    assert model.serialized() == before


def test_layers_and_taps_of_a_plain_network_follow_its_layers(digits: tuple[str, bytes]) -> None:
    kind, source = digits
    found = as_trainable(OnnxModel(onnx.load_from_string(source))).trainable()
    layers = ["0", "2", "4"] if kind == "mlp" else ["0", "3", "7", "10"]

    assert found.layers == tuple((f"{layer}/weight", f"{layer}/bias") for layer in layers)
    assert found.linear == tuple(f"{layer}/weight" for layer in layers)
    assert found.taps == tuple(layers[:-1])
    assert found.names["0/weight"] == "0.weight"


def test_taps_give_hidden_states_under_other_weights_in_the_same_mode(digits: tuple[str, bytes]) -> None:
    kind, source = digits
    found = as_trainable(OnnxModel(onnx.load_from_string(source))).trainable()
    assert found.tapped is not None
    rows = trained.example_input(kind)

    outputs, hidden = found.tapped(rows)
    zeros = {"0/weight": torch.zeros_like(found.module.get_parameter("0/weight"))}
    _, without = torch.func.functional_call(found.tapped, zeros, (rows,))

    torch.testing.assert_close(outputs, found.module(rows))
    torch.testing.assert_close(hidden["0"], trained.trained(kind)[: 2 if kind == "mlp" else 3](rows))
    assert not torch.equal(without["0"], hidden["0"])
    assert {id(value) for value in found.tapped.parameters()} == {id(value) for value in found.module.parameters()}


def batch_norm(stored: dict[str, np.ndarray] | None = None) -> OnnxModel:
    node = helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", "variance"], ["y"], momentum=0.8)
    figures = {
        "scale": floats(3),
        "bias": floats(3),
        "mean": np.zeros(3, np.float32),
        "variance": np.ones(3, np.float32),
    }
    return graph_of([node], {"x": floats(4, 3, 2)}, ["y"], stored or figures)


def test_batch_norm_goes_by_the_batch_while_it_learns_and_its_figures_are_stored() -> None:
    model = trainable_model(batch_norm())
    found = model.trainable()
    rows = torch.from_numpy(floats(64, 3, 2) * 3 + 5)

    made = found.module.train()(rows)[0]
    model.adopt(found)

    scale, bias = found.module.get_parameter("scale"), found.module.get_parameter("bias")
    torch.testing.assert_close(made.mean((0, 2)), bias, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.std((0, 2), correction=0), scale.abs(), atol=1e-3, rtol=1e-3)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}
    np.testing.assert_allclose(stored["mean"], 0.2 * rows.mean((0, 2)).numpy(), rtol=1e-5)
    assert set(dict(found.module.named_buffers())) == {"mean", "variance"}


def test_batch_norm_with_a_frozen_scale_keeps_its_figures() -> None:
    found = trainable_of(batch_norm())
    found.module.get_parameter("scale").requires_grad_(False)
    rows = torch.from_numpy(floats(64, 3, 2) + 5)

    made = found.module.train()(rows)[0]

    torch.testing.assert_close(made, found.module.eval()(rows)[0])
    assert not found.module.get_buffer("mean").any()


@pytest.mark.parametrize("opset", [10, 21])
def test_dropout_drops_while_training_only(opset: int) -> None:
    ratio = {"ratio": np.array(0.9, np.float32)} if opset >= 12 else {}
    attributes = {} if ratio else {"ratio": 0.9}
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"]),
        helper.make_node("Dropout", ["h", *ratio], ["y"], **attributes),
    ]
    module = trainable_of(graph_of(nodes, {"x": floats(2)}, ["y"], {"w": floats(2), **ratio}, opset)).module
    rows = torch.ones(100, 2)

    dropped = module.train()(rows)[0]

    assert 0.8 < (dropped == 0).float().mean() < 0.97
    assert (module.eval()(rows)[0] != 0).all()


def test_a_weight_that_two_nodes_read_is_one_parameter_and_stays_one() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["h"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "turned"], ["y"]),
    ]
    feeds = {"ids": np.array([0, 3], np.int64)}
    model = trainable_model(graph_of(nodes, feeds, ["y"], {"table": floats(5, 4)}))
    found = model.trainable()

    found.module(torch.tensor([0, 3]))[0].sum().backward()
    with torch.no_grad():
        found.module.get_parameter("table").mul_(2.0)
    model.adopt(found)

    assert list(dict(found.module.named_parameters())) == ["table"]
    np.testing.assert_allclose(model.run(feeds)[0], outputs_of(found.module, feeds)[0], rtol=1e-5)


def test_half_precision_learns_in_single_and_is_stored_in_half() -> None:
    nodes = [
        helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    model = trainable_model(graph_of(nodes, {"x": floats(2, 3)}, ["y"], {"w": floats(3, 4).astype(np.float16)}))
    found = model.trainable()
    weight = found.module.get_parameter("w")
    assert weight.dtype == torch.float32

    with torch.no_grad():
        weight.add_(0.01)
    model.adopt(found)
    stored = numpy_helper.to_array(model.proto.graph.initializer[0])

    assert stored.dtype == np.float16
    np.testing.assert_array_equal(stored, weight.detach().numpy().astype(np.float16))
    with torch.no_grad():
        weight.fill_(1e6)
    with pytest.raises(NumericalFailure, match=r"'w'.*float16"):
        model.adopt(found)


def test_weights_inside_constant_nodes_learn_and_lone_numbers_do_not() -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(floats(3, 4))),
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.array(2.0, np.float32))),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Div", ["h", "two"], ["y"]),
    ]
    feeds = {"x": floats(2, 3)}
    model = trainable_model(graph_of(nodes, feeds, ["y"], {}))
    found = model.trainable()

    with torch.no_grad():
        found.module.get_parameter("w").add_(1.0)
    model.adopt(found)

    assert list(found.names) == ["w"]
    np.testing.assert_allclose(model.run(feeds)[0], outputs_of(found.module, feeds)[0], rtol=1e-5)


def test_shapes_computed_in_the_graph_follow_the_batch() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "axis"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    model = graph_of(nodes, {"x": floats(2, 3, 4)}, ["y"], {**constants, "w": floats(12, 5)})

    for rows in (1, 2, 7):
        wanted, got = run_both(model, {"x": floats(rows, 3, 4)})
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-4, atol=1e-5)


def test_only_weights_with_outputs_first_are_called_linear() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "inputs.first"], ["a"]),
        helper.make_node("Transpose", ["outputs.first"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "turned"], ["b"]),
        helper.make_node("Gemm", ["b", "gemm"], ["y"], transB=1),
    ]
    stored = {"inputs.first": floats(3, 4), "outputs.first": floats(5, 4), "gemm": floats(2, 5)}

    assert trainable_of(graph_of(nodes, {"x": floats(2, 3)}, ["y"], stored)).linear == ("outputs/first", "gemm")


def test_repeated_blocks_are_groups_between_what_is_before_and_the_last_layer() -> None:
    stored = {"embed.words.weight": floats(9, 4)}
    nodes = [helper.make_node("Gather", ["embed.words.weight", "ids"], ["h0"])]
    for block in range(2):
        for layer in ("up", "down"):
            name = f"encoder.layer.{block}.{layer}.weight"
            stored[name] = floats(4, 4)
            nodes.append(helper.make_node("MatMul", [nodes[-1].output[0], name], [f"{block}{layer}"]))
    stored |= {"classifier.weight": floats(4, 2), "classifier.bias": floats(2)}
    nodes += [
        helper.make_node("MatMul", ["1down", "classifier.weight"], ["product"]),
        helper.make_node("Add", ["product", "classifier.bias"], ["y"]),
    ]

    found = trainable_of(graph_of(nodes, {"ids": np.array([1, 2])}, ["y"], stored))

    assert found.layers == (
        ("embed/words/weight",),
        ("encoder/layer/0/up/weight", "encoder/layer/0/down/weight"),
        ("encoder/layer/1/up/weight", "encoder/layer/1/down/weight"),
        ("classifier/weight", "classifier/bias"),
    )
    assert found.taps == ("embed.words", "encoder.layer.0", "encoder.layer.1")


def test_the_module_survives_a_copy_and_a_state_dict() -> None:
    found = trainable_of(batch_norm())
    buffer = io.BytesIO()
    torch.save(found.module.state_dict(), buffer)
    buffer.seek(0)
    other = trainable_of(batch_norm())

    other.module.load_state_dict(torch.load(buffer, weights_only=True))

    rows = torch.from_numpy(floats(4, 3, 2))
    torch.testing.assert_close(other.module.eval()(rows), found.module.eval()(rows))


@pytest.mark.long
def test_published_sentence_encoder_answers_as_in_onnxruntime() -> None:
    model = OnnxModel(onnx.load(fetch("minilm-l6-onnx") / "model.onnx"))
    mask = np.ones((2, 12), np.int64)
    mask[1, 7:] = 0
    ids = RNG.integers(1000, 20000, (2, 12))
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feeds = {port.name: feeds[port.name] for port in model.inputs}

    found = trainable_of(model)

    reference = model.run(feeds)[0]
    error = np.abs(outputs_of(found.module.eval(), feeds)[0] - reference).max()
    assert error <= 1e-4 * np.abs(reference).max()
    assert len(found.layers) == 7
