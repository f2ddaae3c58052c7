import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compression.judging import run_in_stock_onnxruntime
from tests.hostile import onnx_graphs
from workers.compression.context import Context
from workers.compression.data import Dataset, first_feeds
from workers.compression.families.onnx.family import inspect, open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.errors import DatasetMismatch, EngineError, InvalidModel, TooLarge, UnsafeModel

Open = Callable[[str], OnnxModel]
Digits = Callable[..., Dataset]


def archive_with_external_data(source: Path, folder: Path) -> Path:
    """As exporters leave large models: weights in a file of their own, a tokenizer beside them."""
    loose = folder / "loose"
    loose.mkdir()
    onnx.save(onnx.load(source), loose / "model.onnx", save_as_external_data=True, location="model.onnx_data")
    (loose / "tokenizer.json").write_text('{"version": "1.0"}')
    path = folder / "upload.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in loose.iterdir():
            archive.write(file, file.name)
    return path


def calling_functions(depth: int) -> bytes:
    """Functions that each call the one below them twice: ``2 ** depth`` additions once expanded."""
    functions = [
        helper.make_function(
            "local",
            f"double_{level}",
            ["a"],
            ["c"],
            [
                helper.make_node(
                    f"double_{level - 1}" if level else "Neg", [name], [result], domain="local" if level else ""
                )
                for name, result in (("a", "b"), ("b", "c"))
            ],
            [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
        )
        for level in range(depth)
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node(f"double_{depth - 1}", ["x"], ["y"], domain="local")], "graph", ports[:1], ports[1:]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=8).SerializeToString()


def test_inspection_describes_the_model(onnx_file: Callable[[str], Path], tmp_path: Path) -> None:
    found = inspect(onnx_file("mlp"), tmp_path, Context(scratch=tmp_path))

    assert found.parameters == 64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10
    assert [(port.name, port.shape, port.dtype) for port in found.inputs] == [("input", ("batch", 64), "float32")]
    assert [port.name for port in found.outputs] == ["logits"]
    assert found.clean is None
    assert found.details["opsets"]


def test_outputs_are_onnxruntimes(
    open_onnx: Open, onnx_file: Callable[[str], Path], digits: Digits, tmp_path: Path
) -> None:
    model = open_onnx("cnn")
    feeds = first_feeds(digits("cnn"), model.inputs, None, 8)

    np.testing.assert_array_equal(model.run(feeds)[0], run_in_stock_onnxruntime(onnx_file("cnn"), feeds, tmp_path))


def test_saved_bytes_are_the_same_each_time(open_onnx: Open, tmp_path: Path) -> None:
    for name in ("first", "second"):
        open_onnx("cnn").save(tmp_path / name)

    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_external_data_in_an_archive_becomes_one_file_that_keeps_its_tokenizer(
    open_onnx: Open, onnx_file: Callable[[str], Path], digits: Digits, tmp_path: Path
) -> None:
    upload = archive_with_external_data(onnx_file("mlp"), tmp_path)
    out = tmp_path / "out"
    out.mkdir()

    found = inspect(upload, out, Context(scratch=tmp_path))

    assert found.clean is not None
    model = open_model(out / Path(found.clean).name, Context(scratch=tmp_path))
    feeds = first_feeds(digits("mlp"), model.inputs, None, 4)
    np.testing.assert_array_equal(model.run(feeds)[0], open_onnx("mlp").run(feeds)[0])
    tokenizer = model.tokenizer_file()
    assert tokenizer is not None
    assert tokenizer.read_text() == '{"version": "1.0"}'
    model.save(tmp_path / "saved.onnx")
    assert model.size_bytes() == (tmp_path / "saved.onnx").stat().st_size


@pytest.mark.parametrize("make", [onnx_graphs.weights_in_an_if_branch, onnx_graphs.weights_in_constant_nodes])
def test_weights_outside_the_initializers_count_too(make: Callable[[Path], bytes], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make(tmp_path))

    model = open_model(path, Context(scratch=tmp_path))

    tensors = {name: values.size for name, values in model.tensors() if values.ndim == 2}
    assert tensors
    assert sum(layer.parameters for layer in model.stored_layers()) >= sum(tensors.values())


def test_multiply_accumulates_are_those_of_the_formula(open_onnx: Open, digits: Digits) -> None:
    feeds = first_feeds(digits("cnn"), open_onnx("cnn").inputs, None, 3)

    per_row = 64 * 32 * 9 + 64 * 32 * 64 * 9 + 16 * 64 * 64 * 9 + 1024 * 10

    assert open_onnx("cnn").macs(feeds) == 3 * per_row


def test_functions_are_expanded(tmp_path: Path) -> None:
    path = tmp_path / "upload.onnx"
    path.write_bytes(calling_functions(4))

    found = inspect(path, tmp_path, Context(scratch=tmp_path))

    assert found.clean is not None
    clean = tmp_path / Path(found.clean).name
    assert not onnx.load(clean).functions
    values = np.arange(3, dtype=np.float32)
    expected = onnxruntime.InferenceSession(path.read_bytes()).run(None, {"x": values})[0]
    np.testing.assert_array_equal(open_model(clean, Context(scratch=tmp_path)).run({"x": values})[0], expected)


def test_functions_are_not_expanded_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "upload.onnx"
    path.write_bytes(calling_functions(40))

    with pytest.raises(TooLarge):
        inspect(path, tmp_path, Context(scratch=tmp_path))


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    proto = onnx.load_model_from_string(calling_functions(2))
    proto.functions[0].node[0].op_type, proto.functions[0].node[0].domain = "double_0", "local"
    path = tmp_path / "upload.onnx"
    path.write_bytes(proto.SerializeToString())

    with pytest.raises(UnsafeModel):
        inspect(path, tmp_path, Context(scratch=tmp_path))


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({"location": "../weights"}, UnsafeModel),
        ({"location": "/etc/passwd"}, UnsafeModel),
        ({"location": ".hidden"}, UnsafeModel),
        ({"location": "missing"}, InvalidModel),
        ({"location": "weights", "offset": "-8"}, InvalidModel),
        ({"location": "weights", "offset": "64", "length": "1024"}, InvalidModel),
        ({"location": "weights", "offset": "nine"}, InvalidModel),
        ({"location": "weights", "basepath": "/"}, UnsafeModel),
    ],
)
def test_external_data_is_read_only_from_inside_its_archive(
    entries: dict[str, str], error: type[EngineError], tmp_path: Path
) -> None:
    proto = onnx_graphs.network()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr("model.onnx", proto.SerializeToString())
        archive.writestr("weights", bytes(256))

    with pytest.raises(error):
        inspect(tmp_path / "upload.zip", tmp_path, Context(scratch=tmp_path))


def test_rows_that_do_not_fit_are_a_mismatch_of_the_data(open_onnx: Open) -> None:
    with pytest.raises(DatasetMismatch, match="no values"):
        open_onnx("mlp").run({})
    with pytest.raises(DatasetMismatch, match="do not fit"):
        open_onnx("mlp").run({"input": np.zeros((2, 63), np.float32)})


def test_quantized_weights_of_other_tools_are_read_back(onnx_file: Callable[[str], Path], tmp_path: Path) -> None:
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(onnx_file("mlp"), tmp_path / "peer.onnx", per_channel=True)
    model = open_model(tmp_path / "peer.onnx", Context(scratch=tmp_path))
    original = {
        tuple(tensor.dims): numpy_helper.to_array(tensor)
        for tensor in onnx.load(onnx_file("mlp")).graph.initializer
        if len(tensor.dims) == 2
    }

    layers = [layer for layer in model.stored_layers() if layer.weights is not None and layer.weights.ndim == 2]

    assert len(layers) == 3
    for layer in layers:
        assert layer.weights is not None
        float_weights = original.get(layer.weights.shape, original.get(layer.weights.shape[::-1]))
        aligned = layer.weights if float_weights.shape == layer.weights.shape else layer.weights.T
        assert np.abs(aligned - float_weights).max() < 0.02 * np.abs(float_weights).max()
