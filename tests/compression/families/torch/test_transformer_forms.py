"""Every form that compressed-tensors has a place for: stock transformers computes with what the form stands for."""

import json
import shutil
import zipfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.auto.modeling_auto import AutoModel
from transformers.models.bert.configuration_bert import BertConfig
from transformers.models.bert.modeling_bert import BertModel

from tests.compression.families.torch.test_pt2_forms import FORMS, codebook, floats, uniform
from workers.compression.context import Context
from workers.compression.families.torch import huggingface
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.specs.errors import EngineError, InvalidModel, UnsupportedFormat, UnsupportedTechnique

Forms = list[tuple[Weight, WeightForm]]
IDS = np.random.default_rng(0).integers(0, 200, (2, 7))
FEEDS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS), "token_type_ids": np.zeros_like(IDS)}

ALIKE = {
    name: FORMS[name]
    for name in (
        "2-affine-group", "3-affine-group", "4-affine-group", "7-affine-group", "8-affine-group", "3-symmetric-group",
        "4-symmetric-group", "4-affine-tensor", "4-affine-channel", "4-affine-block", "4-symmetric-channel", "float8",
    )
} | {
    "5-symmetric-uneven": uniform(5, "symmetric", "group", 48),
    "4-affine-uneven": uniform(4, "affine", "group", 48),
}  # fmt: skip
UNLIKE = [
    uniform(4, "affine", "group"),
    uniform(3, "affine", "channel"),
    uniform(8, "affine", "group"),
    uniform(6, "symmetric", "group", 32),
    floats("float8_e4m3fn", scaled=False),
    uniform(2, "affine", "tensor"),
    uniform(5, "affine", "block", 32),
]


def bert_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=203, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=112,
        max_position_embeddings=30, dtype=dtype,
    )  # fmt: skip
    BertModel(config).to(dtype).save_pretrained(folder)
    return zipped(folder, folder.with_suffix(".zip"))


def zipped(folder: Path, archive: Path) -> Path:
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(folder.iterdir()):
            made.write(path, path.name)
    return archive


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(scratch=tmp_path)


def matrices(model: TransformerModel) -> list[Weight]:
    """All, the table of segments with its two rows among them."""
    return [weight for weight in model.weights() if weight.size > 100]


def stored(model: TransformerModel, forms: Forms, archive: Path) -> Any:
    """Stores and saves, and opens the file as any user does."""
    model.store(forms)
    model.save(archive)
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(archive.with_suffix(""))
    return AutoModel.from_pretrained(archive.with_suffix("")).eval()


def output(module: Any) -> np.ndarray:
    with torch.inference_mode():
        found = module(**{name: torch.from_numpy(values) for name, values in FEEDS.items()})
    values: np.ndarray = found.last_hidden_state.float().numpy()
    return values


def assert_stock_computes_the_same(source: Path, forms_of: Callable[[TransformerModel], Forms], folder: Path) -> None:
    context = Context(scratch=folder)
    model, reference = huggingface.open_model(source, context), huggingface.open_model(source, context)
    forms = forms_of(model)
    layers = [layer.name for layer in model.stored_layers()]

    stock = stored(model, forms, folder / "made.zip")

    reference.replace((weight, form.restored()) for weight, form in forms)
    made = huggingface.open_model(folder / "made.zip", context)
    expected = reference.run(FEEDS)[0]
    np.testing.assert_allclose(model.run(FEEDS)[0], expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(made.run(FEEDS)[0], model.run(FEEDS)[0])
    assert np.array_equal(output(stock), made.run(FEEDS)[0])
    assert [layer.name for layer in made.stored_layers()] == layers
    made.save(folder / "again.zip")
    assert (folder / "again.zip").read_bytes() == (folder / "made.zip").read_bytes()


@pytest.mark.parametrize("name", ALIKE)
def test_stock_transformers_computes_with_what_the_form_stands_for(name: str, bert: Path, tmp_path: Path) -> None:
    def forms_of(model: TransformerModel) -> Forms:
        return [(weight, ALIKE[name](weight, model.matrix(weight))) for weight in matrices(model)]

    assert_stock_computes_the_same(bert, forms_of, tmp_path)


def test_layers_may_be_stored_in_unlike_forms(bert: Path, tmp_path: Path) -> None:
    def forms_of(model: TransformerModel) -> Forms:
        unlike = zip(matrices(model), cycle(UNLIKE), strict=False)
        return [(weight, form(weight, model.matrix(weight))) for weight, form in unlike]

    assert_stock_computes_the_same(bert, forms_of, tmp_path)


def test_zero_points_and_tables_are_packed_where_all_layers_are_alike(
    bert: Path, tmp_path: Path, context: Context
) -> None:
    model = huggingface.open_model(bert, context)
    form = uniform(4, "affine", "group", 32)
    weights = [weight for weight in model.weights() if weight.size > 1000]
    layout = [(weight, form(weight, model.matrix(weight))) for weight in weights if weight.matrix_shape[1] % 32 == 0]

    stock = stored(model, layout, tmp_path / "made.zip")

    assert np.array_equal(output(stock), model.run(FEEDS)[0])
    names = dict(model.stored())
    table = "embeddings.word_embeddings.weight"
    assert (names[f"{table}_packed"].dtype, names[f"{table}_packed"].shape) == (torch.int32, (203, 8))
    assert (names[f"{table}_zero_point"].dtype, names[f"{table}_zero_point"].shape) == (torch.int32, (26, 2))
    layer = next(layer for layer in model.stored_layers() if layer.name == "embeddings.word_embeddings")
    assert (layer.bits, layer.bytes) == (4.0, 203 * 8 * 4 + 203 * 2 * 4 + 26 * 2 * 4 + 16)


def test_a_bfloat16_model_keeps_bfloat16_scales(tmp_path: Path) -> None:
    source = bert_folder(tmp_path / "model", torch.bfloat16)
    context = Context(scratch=tmp_path)
    model = huggingface.open_model(source, context)
    form = uniform(4, "affine", "group", 16)
    forms = [(weight, form(weight, model.matrix(weight))) for weight in matrices(model)]

    stock = stored(model, forms, tmp_path / "made.zip")

    assert stock.dtype == torch.bfloat16
    assert {tensor.dtype for name, tensor in model.stored().items() if name.endswith("_scale")} == {torch.bfloat16}
    made = huggingface.open_model(tmp_path / "made.zip", context)
    assert np.array_equal(output(stock), made.run(FEEDS)[0])
    for weight, stored_form in forms:
        np.testing.assert_allclose(weight.to_matrix(made.values_of(weight.name).float().numpy()),
                                   stored_form.restored(), rtol=0.01, atol=1e-3)  # fmt: skip


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (codebook(4, None), "no codebooks"),
        (uniform(4, "minmax", "group"), "no offsets"),
        (floats("float8_e5m2", scaled=True), "no float8_e5m2"),
    ],
)
def test_what_compressed_tensors_has_no_place_for_is_refused(
    form: Callable[[Weight, np.ndarray], WeightForm], reason: str, bert: Path, context: Context
) -> None:
    model = huggingface.open_model(bert, context)
    weight = matrices(model)[0]
    made = form(weight, model.matrix(weight))
    assert reason in str(model.why_not(weight, made))
    with pytest.raises(UnsupportedTechnique, match=reason):
        model.store([(weight, made)])


@pytest.mark.parametrize("name", ["4-affine-group", "float8"])
def test_restored_weights_cannot_learn(name: str, bert: Path, context: Context) -> None:
    model = huggingface.open_model(bert, context)
    weight = matrices(model)[0]
    form = FORMS[name](weight, model.matrix(weight))
    assert isinstance(form, UniformWeight | FloatForm)
    model.store([(weight, form)])
    with pytest.raises(UnsupportedTechnique, match="cannot learn"):
        model.trainable()


def altered(archive: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The archive with another ``quantization_config``."""
    folder = target.with_suffix("")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    config = json.loads((folder / "config.json").read_text())
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    made = zipped(folder, target)
    shutil.rmtree(folder)
    return made


@pytest.fixture(scope="module")
def packed(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    model = huggingface.open_model(bert, Context(scratch=folder))
    form = uniform(4, "affine", "group", 16)
    model.store([(weight, form(weight, model.matrix(weight))) for weight in model.weights() if weight.size > 1000])
    model.save(folder / "made.zip")
    return folder / "made.zip"


def of_group(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["config_groups"]["group_0"].update(entries)


def of_weights(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["config_groups"]["group_0"]["weights"].update(entries)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (of_group(input_activations={"num_bits": 8}), UnsupportedFormat),
        (of_group(format="nvfp4-pack-quantized"), UnsupportedFormat),
        (of_group(weights=None), UnsupportedFormat),
        (of_group(targets="Linear"), InvalidModel),
        (lambda config: config.update(transform_config={"config_groups": {}}), UnsupportedFormat),
        (lambda config: config.update(kv_cache_scheme={"num_bits": 8}), UnsupportedFormat),
        (lambda config: config.update(config_groups=[]), InvalidModel),
        (of_weights(num_bits=1 << 40), UnsupportedFormat),
        (of_weights(num_bits=True), UnsupportedFormat),
        (of_weights(type="float"), UnsupportedFormat),
        (of_weights(strategy="tensor_group"), UnsupportedFormat),
        (of_weights(actorder="group"), UnsupportedFormat),
        (of_weights(group_size=0), InvalidModel),
        (of_weights(group_size=1 << 40), InvalidModel),
        (of_weights(group_size=[16]), InvalidModel),
        (of_weights(num_bits=5), InvalidModel),
        (of_weights(group_size=32), InvalidModel),
        (of_weights(strategy="channel"), InvalidModel),
    ],
)
def test_configurations_that_contradict_the_tensors_are_refused(
    change: Callable[[dict[str, Any]], None], error: type[EngineError], packed: Path, tmp_path: Path, context: Context
) -> None:
    with pytest.raises(error):
        huggingface.open_model(altered(packed, tmp_path / "hostile.zip", change), context)


def test_groups_whose_targets_are_classes_or_patterns_are_read(packed: Path, tmp_path: Path, context: Context) -> None:
    expected = huggingface.open_model(packed, context).run(FEEDS)[0]
    targets = ["Linear", "Embedding", "re:(a+)+$"]
    opened = huggingface.open_model(altered(packed, tmp_path / "other.zip", of_group(targets=targets)), context)
    assert np.array_equal(opened.run(FEEDS)[0], expected)
