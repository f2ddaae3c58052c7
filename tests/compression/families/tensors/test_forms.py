"""Weights in few bits in files of tensors: what was stored is what comes back, here and in the user's own code."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.compression.context import Context
from workers.compression.families.tensors import safetensors_file, state_dict
from workers.compression.families.tensors.model import TensorsModel
from workers.compression.families.tensors.stored import StoredTensor, TensorFile, write_safetensors
from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.layers import compare_layers, tensor_fidelity
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, GroupScales
from workers.compression.quantization.uniform import Grid, quantize
from workers.compression.specs.errors import InvalidModel
from workers.compression.specs.formats import ModelFormat

FAMILIES: dict[ModelFormat, Any] = {
    ModelFormat.SAFETENSORS: safetensors_file,
    ModelFormat.TORCH_STATE_DICT: state_dict,
}
FORMATS = pytest.mark.parametrize("model_format", FAMILIES)


def a_model(model_format: ModelFormat, folder: Path) -> TensorsModel:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "embed.weight": torch.randn(50, 36, generator=random),
        "conv": torch.randn(6, 3, 5, 5, generator=random).to(torch.bfloat16),
        "fc.weight": torch.randn(33, 70, generator=random),
        "fc.bias": torch.randn(33, generator=random),
        "steps": torch.arange(3),
    }
    path = folder / "original"
    write_safetensors(
        path, {name: StoredTensor.of(tensor) for name, tensor in tensors.items()}, {"head": "embed.weight"}
    )
    model: TensorsModel = FAMILIES[model_format].open_model(path, Context(scratch=folder))
    return model


def uniform(values: np.ndarray, bits: int, scheme: Any, granularity: Any, group: int = 16) -> WeightForm:
    shape = (values.shape[0], values.shape[1])
    return quantize(values, Grid.of(scheme, bits), Blocks.of_matrix(shape, granularity, group), scheme)


def codebook(values: np.ndarray, bits: int, rows: int) -> CodebookWeight:
    random = np.random.default_rng(bits)
    blocks = Blocks((values.shape[0], values.shape[1]), (rows, values.shape[1]))
    entries = max(2, (1 << bits) - 1)
    books = np.sort(random.normal(size=(*blocks.counts, entries)).astype(np.float32), axis=-1)
    return CodebookWeight(random.integers(0, entries, values.shape).astype(np.uint8), books, bits, blocks)


def scaled(values: np.ndarray, bits: int, length: int, *, halves: bool) -> CodebookWeight:
    """Groups of ``length`` columns, or whole rows where these cannot be divided so."""
    found, random = codebook(values, bits, len(values)), np.random.default_rng(length)
    length = length if values.shape[1] % length == 0 else values.shape[1]
    factors, books = random.normal(size=11).astype(np.float32), found.codebooks
    if halves:
        factors, books = (array.astype(np.float16).astype(np.float32) for array in (factors, books))
    own = random.integers(0, 11, (len(values), values.shape[1] // length)).astype(np.uint8)
    return replace(found, codebooks=books, scales=GroupScales(own, factors, length))


def floats(values: np.ndarray, dtype: Any, scaled: str) -> FloatForm:
    rounded = torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()
    shape = {"none": None, "tensor": (1, 1), "channel": (len(values), 1)}[scaled]
    return FloatForm(rounded, dtype, None if shape is None else np.full(shape, 0.3, np.float32))


MAKERS: dict[str, Any] = {
    **{
        f"{scheme}-{bits}-{granularity}": lambda values, b=bits, s=scheme, g=granularity: uniform(values, b, s, g)
        for scheme in ("affine", "symmetric", "minmax")
        for bits, granularity in ((2, "group"), (3, "block"), (4, "group"), (5, "tensor"), (7, "channel"), (8, "group"))
    },
    "codebook-tensor": lambda values: codebook(values, 4, len(values)),
    "codebook-3-channel": lambda values: codebook(values, 3, 1),
    "codebook-8-rows": lambda values: codebook(values, 8, 5),
    "codebook-1": lambda values: codebook(values, 1, len(values)),
    "codebook-scaled": lambda values: scaled(values, 4, 5, halves=True),
    "codebook-3-scaled": lambda values: scaled(values, 3, 2, halves=False),
    **{
        f"{dtype}-{scaled}": lambda values, d=dtype, s=scaled: floats(values, d, s)
        for dtype, scaled in (
            ("float16", "none"), ("bfloat16", "none"), ("float8_e4m3fn", "channel"), ("float8_e5m2", "tensor"),
            ("float8_e4m3fn", "none"),
        )
    },
}  # fmt: skip


def stored(model: TensorsModel, maker: Any) -> dict[str, np.ndarray]:
    """Stores every weight of the model in its form; the values that they then stand for, by name."""
    forms = [(weight, maker(model.matrix(weight))) for weight in model.weights()]
    model.store(forms)
    return {weight.name: form.restored().reshape(weight.shape) for weight, form in forms}


def executed(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    found: dict[str, torch.Tensor] = names.get("state_dict", names.get("tensors"))
    return found


@FORMATS
@pytest.mark.parametrize("maker", MAKERS)
def test_what_was_stored_comes_back_here_and_in_the_users_own_code(
    model_format: ModelFormat, maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_model(model_format, tmp_path)
    plain = {name: tensor.load() for name, tensor in model.stored.items()}
    expected = stored(model, MAKERS[maker])
    assert len(expected) == 3
    path = tmp_path / f"model{model.extension}"
    model.save(path)

    again = FAMILIES[model_format].open_model(path, Context(scratch=tmp_path))
    pasted = executed(model.load_snippet(path.name), tmp_path, monkeypatch)

    assert again.stored.keys() == plain.keys()
    assert again.shared == model.shared == {"head": "embed.weight"}
    assert pasted.keys() >= plain.keys()
    for name, values in expected.items():
        assert np.array_equal(again.stored[name].load().float().numpy(), values), name
        assert np.array_equal(np.concatenate([piece.float() for piece in again.stored[name].pieces()]), values.ravel())
        assert np.array_equal(pasted[name].float().numpy(), values), name
    assert all(torch.equal(pasted[name], plain[name]) for name in ("fc.bias", "steps"))
    if model_format is ModelFormat.TORCH_STATE_DICT or not maker.startswith(("float", "bfloat")):
        assert torch.equal(pasted["head"].float(), pasted["embed.weight"].float())
    assert "import pressroom" not in model.load_snippet(path.name)
    assert model.load_snippet(path.name) == again.load_snippet(path.name)


@FORMATS
def test_one_file_holds_weights_of_different_forms(
    model_format: ModelFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_model(model_format, tmp_path)
    kinds = {"embed.weight": "codebook-3-channel", "fc.weight": "codebook-scaled", "conv": "affine-4-group"}
    forms = [(weight, MAKERS[kinds[weight.name]](model.matrix(weight))) for weight in model.weights()]
    model.store(forms)
    path = tmp_path / f"model{model.extension}"
    model.save(path)
    pasted = executed(model.load_snippet(path.name), tmp_path, monkeypatch)
    for weight, form in forms:
        assert np.array_equal(pasted[weight.name].numpy(), form.restored().reshape(weight.shape)), weight.name
    assert pasted.keys() == {*kinds, "head", "fc.bias", "steps"}


@FORMATS
def test_reports_show_bits_bytes_and_noise_of_what_was_read_back(model_format: ModelFormat, tmp_path: Path) -> None:
    original, model = a_model(model_format, tmp_path), a_model(model_format, tmp_path)
    expected = stored(model, MAKERS["affine-4-group"])
    path = tmp_path / f"model{model.extension}"
    model.save(path)
    again = FAMILIES[model_format].open_model(path, Context(scratch=tmp_path))

    for artifact in (model, again):
        layers = {layer.name: layer for layer in compare_layers(original, artifact)}
        fidelity = tensor_fidelity(original, artifact)
        for name, values in expected.items():
            before = original.stored[name].load().float().numpy().astype(np.float64)
            error = values - before
            decibels = 10 * np.log10((before**2).sum() / (error**2).sum())
            assert layers[name].sqnr_db == pytest.approx(decibels, abs=1e-3)
            assert layers[name].sparsity == pytest.approx(float((values == 0).mean()))
            assert 4 < layers[name].bits == 8 * layers[name].bytes_after / values.size < 9
        assert layers["fc.bias"].bits == 32
        assert fidelity is not None
        assert 0.98 < fidelity.cosine < 1
    inspection = FAMILIES[model_format].open_model(path, Context(scratch=tmp_path)).inspection(None, {}, [])
    assert {found.name: found.dtype for found in inspection.tensors}["fc.weight"] == "uniform4"
    assert inspection.parameters == sum(tensor.elements for tensor in original.stored.values())


def test_a_quantized_state_dict_can_be_uploaded_again(tmp_path: Path) -> None:
    model = a_model(ModelFormat.TORCH_STATE_DICT, tmp_path)
    expected = stored(model, MAKERS["symmetric-3-block"])
    model.save(tmp_path / "model.pth")
    (tmp_path / "out").mkdir()
    found = state_dict.inspect(tmp_path / "model.pth", tmp_path / "out", Context(scratch=tmp_path))
    assert found.warnings == ()
    assert found.clean is not None
    again = state_dict.open_model(tmp_path / found.clean, Context(scratch=tmp_path))
    assert all(np.array_equal(again.stored[name].load().numpy(), values) for name, values in expected.items())


def test_same_forms_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        model = a_model(ModelFormat.SAFETENSORS, tmp_path)
        stored(model, MAKERS["minmax-5-tensor"])
        model.save(tmp_path / name)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_values_are_replaced_in_their_own_type(tmp_path: Path) -> None:
    model = a_model(ModelFormat.SAFETENSORS, tmp_path)
    weights = {weight.name: weight for weight in model.weights()}
    model.replace((weight, np.full(weight.matrix_shape, 1.3, np.float32)) for weight in weights.values())
    assert model.stored["conv"].dtype == torch.bfloat16
    assert torch.equal(model.stored["conv"].load(), torch.full((6, 3, 5, 5), 1.3).to(torch.bfloat16))
    assert torch.equal(model.stored["fc.weight"].load(), torch.full((33, 70), 1.3))


def damaged(tensors: dict[str, StoredTensor], layouts: str) -> Iterator[tuple[str, dict[str, StoredTensor], str]]:
    missing = {name: tensor for name, tensor in tensors.items() if name != "fc.weight_scale"}
    short = {**tensors, "fc.weight_packed": StoredTensor.of(torch.zeros(33, 8, dtype=torch.int32))}
    strange = {**tensors, "fc.weight_scale": StoredTensor.of(torch.zeros(33, 5, dtype=torch.int32))}
    yield "missing", missing, layouts
    yield "short", short, layouts
    yield "strange", strange, layouts
    yield "json", tensors, layouts[:-2]
    yield "huge", tensors, layouts.replace("[33,70]", "[2147483647,70]")
    yield "alias", tensors, layouts.replace('"head":', '"fc.bias":')
    yield "twice", {**tensors, "fc.weight": StoredTensor.of(torch.zeros(3))}, layouts


@pytest.mark.parametrize("fault", ["missing", "short", "strange", "json", "huge", "alias", "twice"])
def test_parts_that_do_not_fit_are_refused(fault: str, tmp_path: Path) -> None:
    from workers.compression.families.tensors.layout import KEY
    from workers.compression.families.tensors.packed_file import joined, parted

    model = a_model(ModelFormat.SAFETENSORS, tmp_path)
    stored(model, MAKERS["affine-4-group"])
    tensors, shared, metadata = parted(model.content)
    for name, changed, layouts in damaged(tensors, metadata[KEY]):
        if name == fault:
            with pytest.raises(InvalidModel):
                joined(TensorFile(changed, shared, {KEY: layouts}))


def damaged_scales() -> Iterator[tuple[str, str, StoredTensor | None]]:
    """What is wrong, and the part that is replaced, or dropped."""
    of = StoredTensor.of
    yield "no codes", ".scale_codes", None
    yield "no values", ".scales", None
    yield "groups of unequal length", ".scale_codes", of(torch.zeros(33, 4, dtype=torch.uint8))
    yield "no groups", ".scale_codes", of(torch.zeros(33, 0, dtype=torch.uint8))
    yield "fewer rows", ".scale_codes", of(torch.zeros(32, 14, dtype=torch.uint8))
    yield "codes that are no bytes", ".scale_codes", of(torch.zeros(33, 14, dtype=torch.int64))
    yield "too many values", ".scales", of(torch.zeros(257))
    yield "no value", ".scales", of(torch.zeros(0))
    yield "a number", ".scales", of(torch.tensor(1.0))
    yield "a table", ".scales", of(torch.zeros(2, 11))
    yield "integers", ".scales", of(torch.zeros(11, dtype=torch.int32))
    yield "a codebook that is a number", ".codebook", of(torch.tensor(1.0))
    yield "several codebooks", ".codebook", of(torch.zeros(33, 1, 15))


def is_refused(content: TensorFile) -> bool:
    from workers.compression.families.tensors.packed_file import joined

    try:
        joined(content)
    except InvalidModel:
        return True
    return False


def test_scales_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from workers.compression.families.tensors.layout import KEY
    from workers.compression.families.tensors.packed_file import joined, parted

    model = a_model(ModelFormat.SAFETENSORS, tmp_path)
    stored(model, MAKERS["codebook-scaled"])
    tensors, shared, metadata = parted(model.content)
    joined(TensorFile(tensors, shared, metadata))
    for fault, suffix, part in damaged_scales():
        changed = {name: tensor for name, tensor in tensors.items() if name != "fc.weight" + suffix}
        if part is not None:
            changed["fc.weight" + suffix] = part
        assert is_refused(TensorFile(changed, shared, metadata)), fault
    blocks = {**metadata, KEY: metadata[KEY].replace('"block":[33,70]', '"block":[1,70]')}
    books = StoredTensor.of(torch.zeros(33, 1, 15))
    assert is_refused(TensorFile({**tensors, "fc.weight.codebook": books}, shared, blocks))


def test_codes_beyond_the_scales_are_refused(tmp_path: Path) -> None:
    from workers.compression.families.tensors.packed_file import joined, parted

    model = a_model(ModelFormat.SAFETENSORS, tmp_path)
    stored(model, MAKERS["codebook-scaled"])
    tensors, shared, metadata = parted(model.content)
    beyond = StoredTensor.of(torch.full((33, 14), 11, dtype=torch.uint8))
    again = joined(TensorFile({**tensors, "fc.weight.scale_codes": beyond}, shared, metadata))
    with pytest.raises(InvalidModel, match="codebook"):
        again.tensors["fc.weight"].load()


def test_codebooks_and_scales_take_two_bytes_a_number_where_that_is_exact(tmp_path: Path) -> None:
    model = a_model(ModelFormat.SAFETENSORS, tmp_path)
    weight = next(found for found in model.weights() if found.name == "fc.weight")
    sizes = {}
    for halves in (True, False):
        made = model.with_tensors(model.stored)
        made.store([(weight, scaled(made.matrix(weight), 4, 5, halves=halves))])
        sizes[halves] = made.stored["fc.weight"].nbytes
    assert sizes[True] == 33 * 35 + 33 * 14 + 2 * (15 + 11)
    assert sizes[False] == 33 * 35 + 33 * 14 + 4 * (15 + 11)


def test_codes_beyond_a_codebook_are_refused(tmp_path: Path) -> None:
    weight = Weight("w", "w", (2, 3), "float32", "linear", (0, 1))
    write_safetensors(tmp_path / "o", {"w": StoredTensor.of(torch.zeros(2, 3))}, {})
    model = safetensors_file.open_model(tmp_path / "o", Context(scratch=tmp_path))
    form = CodebookWeight(np.full((2, 3), 3, np.uint8), np.zeros((1, 1, 3), np.float32), 2, Blocks((2, 3), (2, 3)))
    model.store([(weight, form)])
    with pytest.raises(InvalidModel, match="codebook"):
        model.stored["w"].load()


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    bits=st.integers(2, 8),
    scheme=st.sampled_from(["affine", "symmetric", "minmax"]),
    granularity=st.sampled_from(["tensor", "channel", "group", "block"]),
    seed=st.integers(0, 99),
)
def test_any_shape_comes_back_bit_for_bit(
    rows: int, columns: int, bits: int, scheme: Any, granularity: Any, seed: int
) -> None:
    from workers.compression.families.tensors import layout, quantized

    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    form = uniform(values, bits, scheme, granularity, 32)
    described, arrays = layout.parts_of(form, (rows, columns))
    parts = {suffix: StoredTensor.of(torch.from_numpy(array)) for suffix, array in arrays.items()}
    again = quantized.QuantizedTensor.reading("w", described, parts)
    assert np.array_equal(again.load().numpy(), form.restored())
