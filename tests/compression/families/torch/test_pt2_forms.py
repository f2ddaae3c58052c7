"""Every form of a weight goes into a program, and stock torch restores from it what the form stands for."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workers.compression.context import Context
from workers.compression.families.model import StoredLayer
from workers.compression.families.torch import pt2
from workers.compression.families.torch.pt2_buffers import read_back
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_notes import NOTES_NAME, read_notes
from workers.compression.families.weights import FloatForm, FloatType, Weight, WeightForm
from workers.compression.quantization.blocks import Blocks, Granularity
from workers.compression.quantization.codebook import CodebookWeight, GroupScales
from workers.compression.quantization.uniform import Grid, Scheme, quantize
from workers.compression.specs.errors import InvalidModel

Form = Callable[[Weight, np.ndarray], WeightForm]


class Layers(torch.nn.Module):
    """One of each reader of a weight; sizes that neither bytes nor groups divide."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(37, 43, padding_idx=0)
        self.convolution = torch.nn.Conv1d(43, 22, 3)
        self.transposed = torch.nn.ConvTranspose1d(22, 34, 3)
        self.linear = torch.nn.Linear(34, 21)
        self.product = torch.nn.Parameter(torch.randn(21, 37) / 5)
        self.to(dtype)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.transposed(self.convolution(self.table(ids).transpose(1, 2))).transpose(1, 2)
        hidden = self.linear(hidden)
        return hidden @ self.product, torch.nn.functional.linear(self.table(ids), self.table.weight)


def export(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], path: Path) -> Path:
    shapes = tuple({0: torch.export.Dim("batch", max=64)} for _ in arguments)
    torch.export.save(torch.export.export(module.eval(), arguments, dynamic_shapes=shapes), path)
    return path


@pytest.fixture(scope="module")
def layers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids = torch.arange(2 * 9).reshape(2, 9)
    return export(Layers(), (ids,), tmp_path_factory.mktemp("pt2") / "layers.pt2")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


def uniform(bits: int, scheme: Scheme, granularity: Granularity, size: int = 16) -> Form:
    def form(weight: Weight, matrix: np.ndarray) -> WeightForm:
        return quantize(matrix, Grid.of(scheme, bits), Blocks.of_matrix(weight.matrix_shape, granularity, size), scheme)

    return form


def codebook(bits: int, rows: int | None) -> Form:
    def form(weight: Weight, matrix: np.ndarray) -> WeightForm:
        height = weight.matrix_shape[0] if rows is None else min(rows, weight.matrix_shape[0])
        blocks = Blocks(weight.matrix_shape, (height, weight.matrix_shape[1]))
        random = np.random.default_rng(0)
        books = np.sort(random.normal(size=(*blocks.counts, 1 << bits)).astype(np.float32), axis=-1)
        return CodebookWeight(random.integers(0, 1 << bits, matrix.shape).astype(np.uint8), books, bits, blocks)

    return form


def scaled_codebook(bits: int, most: int) -> Form:
    """Groups of the most inputs up to ``most`` that divide them."""

    def form(weight: Weight, matrix: np.ndarray) -> WeightForm:
        plain = codebook(bits, None)(weight, matrix)
        assert isinstance(plain, CodebookWeight)
        rows, columns = weight.matrix_shape
        length = next(length for length in range(most, 0, -1) if columns % length == 0)
        random = np.random.default_rng(1)
        own = random.integers(0, 9, (rows, columns // length)).astype(np.uint8)
        return replace(plain, scales=GroupScales(own, random.normal(size=9).astype(np.float32), length))

    return form


def floats(dtype: FloatType, *, scaled: bool) -> Form:
    def form(weight: Weight, matrix: np.ndarray) -> WeightForm:
        scale = np.abs(matrix).max(axis=1, keepdims=True) / 256 + 1e-6 if scaled else None
        numbers = torch.from_numpy(matrix if scale is None else matrix / scale)
        return FloatForm(numbers.to(getattr(torch, dtype)).float().numpy(), dtype, scale)

    return form


FORMS = {
    **{f"{bits}-affine-group": uniform(bits, "affine", "group") for bits in range(2, 9)},
    **{f"{bits}-symmetric-group": uniform(bits, "symmetric", "group") for bits in (3, 4, 8)},
    **{f"{bits}-minmax-channel": uniform(bits, "minmax", "channel") for bits in (4, 7, 8)},
    **{f"4-affine-{granularity}": uniform(4, "affine", granularity) for granularity in ("tensor", "channel", "block")},
    "4-symmetric-channel": uniform(4, "symmetric", "channel"),
    "6-symmetric-tensor": uniform(6, "symmetric", "tensor"),
    "5-minmax-block": uniform(5, "minmax", "block"),
    "codes-1-tensor": codebook(1, None),
    "codes-3-channel": codebook(3, 1),
    "codes-4-rows": codebook(4, 8),
    "codes-8-tensor": codebook(8, None),
    "codes-4-scaled": scaled_codebook(4, 16),
    "codes-8-scaled": scaled_codebook(8, 50),
    "float8": floats("float8_e4m3fn", scaled=True),
    "float8-wide": floats("float8_e5m2", scaled=True),
    "float8-bare": floats("float8_e4m3fn", scaled=False),
    "bfloat16": floats("bfloat16", scaled=False),
    "float16": floats("float16", scaled=False),
}


QUICK = (
    "3-affine-group", "4-affine-block", "4-symmetric-group", "7-minmax-channel", "8-affine-group", "codes-4-rows",
    "codes-4-scaled", "float8", "bfloat16",
)  # fmt: skip
ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in FORMS]


def stored(source: Path, name: str, target: Path, context: Context) -> tuple[Pt2Model, list[tuple[Weight, WeightForm]]]:
    """The model with all its larger weights in one form, saved; and the forms."""
    model = pt2.open_model(source, context)
    weights = [weight for weight in model.weights() if weight.size > 100]
    forms = [(weight, FORMS[name](weight, model.matrix(weight))) for weight in weights]
    model.store(forms)
    model.save(target)
    return model, forms


@pytest.mark.parametrize("name", ALL)
def test_stock_torch_computes_with_what_the_form_stands_for_and_we_read_it_back(
    name: str, layers_file: Path, tmp_path: Path, context: Context
) -> None:
    before = {layer.name: layer for layer in pt2.open_model(layers_file, context).stored_layers()}
    _, forms = stored(layers_file, name, tmp_path / "stored.pt2", context)
    assert {weight.role for weight, _ in forms} == {"embedding", "convolution", "linear"}

    stock = torch.export.load(tmp_path / "stored.pt2").module()
    made = pt2.open_model(tmp_path / "stored.pt2", context)
    made.save(tmp_path / "again.pt2")

    reference = Layers().eval()
    for weight, form in forms:
        reference.get_parameter(weight.name).data.copy_(torch.from_numpy(weight.from_matrix(form.restored()).copy()))
    for rows in (torch.arange(2 * 9).reshape(2, 9), torch.arange(9).reshape(1, 9) + 28):
        with torch.inference_mode():
            for found, expected in zip(stock(rows), reference(rows), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (tmp_path / "again.pt2").read_bytes() == (tmp_path / "stored.pt2").read_bytes()
    assert_counted(made, forms, before)


def assert_counted(made: Pt2Model, forms: list[tuple[Weight, WeightForm]], before: dict[str, StoredLayer]) -> None:
    values = {stored: tensor.load() for stored, tensor in made.parameters()}
    layers = {layer.name: layer for layer in made.stored_layers()}
    assert layers.keys() == before.keys()
    for weight, form in forms:
        assert torch.equal(values[weight.name].float(), torch.from_numpy(weight.from_matrix(form.restored()).copy()))
        layer = layers[weight.layer]
        assert layer.op == before[weight.layer].op
        assert layer.parameters == before[weight.layer].parameters
        size = sum(array.nbytes for stored, array in made.tensors() if stored.startswith(weight.name))
        assert layer.bits * weight.size <= 8 * size <= 8 * layer.bytes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    "name", ["4-affine-group", "8-symmetric-group", "4-minmax-channel", "codes-4-rows", "codes-4-scaled", "float8"]
)
def test_weights_of_other_types_are_restored_in_their_own(
    name: str, dtype: torch.dtype, tmp_path: Path, context: Context
) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(43, 37, bias=False)).to(dtype)
    source = export(module, (torch.ones(2, 43, dtype=dtype),), tmp_path / "source.pt2")
    _, ((_, form),) = stored(source, name, tmp_path / "stored.pt2", context)

    with torch.inference_mode():
        restored = torch.export.load(tmp_path / "stored.pt2").module()(torch.eye(43, dtype=dtype))

    expected = dict(pt2.open_model(tmp_path / "stored.pt2", context).parameters())["0.weight"].load()
    assert torch.equal(restored.T, expected)
    torch.testing.assert_close(expected.float(), torch.from_numpy(form.restored()), rtol=0.01, atol=0.005)


def without(*keys: str) -> Callable[[dict[str, Any]], None]:
    return lambda note: [note.pop(key) for key in keys] and None


@pytest.mark.parametrize(
    "change",
    [
        lambda note: note.update(bits=9),
        lambda note: note.update(bits=True),
        lambda note: note.update(bits=5),
        lambda note: note.update(kind="floats"),
        lambda note: note.update(kind="codes"),
        lambda note: note.update(block=[1, 0]),
        lambda note: note.update(block=[1, 1 << 30]),
        lambda note: note.update(shape=[1 << 30, 1 << 30, 1 << 30]),
        lambda note: note.update(shape=[]),
        lambda note: note.update(order=[0, 0]),
        lambda note: note.update(order=[1, 7]),
        lambda note: note.update(dtype="object"),
        lambda note: note.update(reader="<script>"),
        lambda note: note.update(by_row=not note.get("by_row", False)),
        without("shape"),
    ],
)
def test_notes_that_contradict_the_buffers_are_refused(
    change: Callable[[dict[str, Any]], None], layers_file: Path, tmp_path: Path, context: Context
) -> None:
    model, _ = stored(layers_file, "4-affine-group", tmp_path / "stored.pt2", context)
    state = dict(model.program.state_dict)
    notes = json.loads(state[NOTES_NAME].numpy().tobytes())
    change(notes["linear.weight"])
    state[NOTES_NAME] = torch.frombuffer(bytearray(json.dumps(notes).encode()), dtype=torch.uint8)
    with pytest.raises(InvalidModel):
        read_notes(state)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"linear.weight": 3}', b"[" * 100_000])
def test_notes_that_are_no_notes_are_refused_or_empty(content: bytes) -> None:
    tensors = {NOTES_NAME: torch.tensor(list(content), dtype=torch.uint8)}
    with contextlib.suppress(InvalidModel):
        assert read_notes(tensors) == {}


def test_codes_beyond_their_codebooks_are_refused(layers_file: Path, tmp_path: Path, context: Context) -> None:
    model, _ = stored(layers_file, "codes-4-rows", tmp_path / "stored.pt2", context)
    state = dict(model.program.state_dict)
    books = state["linear.weight_codebook"]
    state["linear.weight_codebook"] = books.reshape(-1, 16)[:, :15].reshape(-1, 1).clone()
    note = read_notes(state)["linear.weight"]
    with pytest.raises(InvalidModel, match="beyond its codebooks"):
        read_back("linear.weight", note, state)


MISFITS: list[tuple[str, torch.Tensor | None]] = [
    ("codes", None),
    ("values", None),
    ("codes", torch.zeros(21, 3, dtype=torch.uint8)),
    ("codes", torch.zeros(21, 0, dtype=torch.uint8)),
    ("codes", torch.zeros(20, 17, dtype=torch.uint8)),
    ("codes", torch.zeros(21 * 17, dtype=torch.uint8)),
    ("codes", torch.zeros(21, 17, dtype=torch.int32)),
    ("values", torch.zeros(257, 1)),
    ("values", torch.zeros(0, 1)),
    ("values", torch.tensor(1.0)),
    ("values", torch.zeros(9, 1, dtype=torch.int32)),
]


def test_scales_of_groups_that_do_not_fit_are_refused(layers_file: Path, tmp_path: Path, context: Context) -> None:
    model, _ = stored(layers_file, "codes-4-scaled", tmp_path / "stored.pt2", context)
    state = dict(model.program.state_dict)
    assert state["linear.weight_scale_codes"].shape == (21, 17)
    assert "linear.weight" in read_notes(state)
    for part, values in MISFITS:
        changed = {name: tensor for name, tensor in state.items() if name != f"linear.weight_scale_{part}"}
        with pytest.raises(InvalidModel):
            read_notes(changed if values is None else {**changed, f"linear.weight_scale_{part}": values})


def test_codes_beyond_the_scales_are_refused(layers_file: Path, tmp_path: Path, context: Context) -> None:
    model, _ = stored(layers_file, "codes-4-scaled", tmp_path / "stored.pt2", context)
    state = dict(model.program.state_dict)
    state["linear.weight_scale_values"] = state["linear.weight_scale_values"][:8].clone()
    note = read_notes(state)["linear.weight"]
    with pytest.raises(InvalidModel, match="beyond its scales"):
        read_back("linear.weight", note, state)


def test_variations_leave_no_trace(layers_file: Path, context: Context) -> None:
    model = pt2.open_model(layers_file, context)
    feeds = {model.inputs[0].name: np.arange(2 * 9).reshape(2, 9)}
    before = model.run(feeds)[0]
    weight = next(weight for weight in model.weights() if weight.layer == "transposed")
    with model.varied([(weight, np.zeros(weight.matrix_shape, np.float32))]) as run:
        assert not np.array_equal(run(feeds)[0], before)
    assert np.array_equal(model.run(feeds)[0], before)
