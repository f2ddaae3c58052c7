"""Integers on a real sentence encoder, where naive static quantization ends at a cosine of .36."""

from pathlib import Path

import numpy as np
import pytest

from app.cli.zoo import fetch
from tests.benchmarks.inputs import minilm_onnx
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset, pool
from workers.compression.families.model import Array
from workers.compression.families.onnx.family import open_model
from workers.compression.families.onnx.model import OnnxModel
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile
from workers.compression.specs.steps.quantize import DynamicQuantize, StaticQuantize
from workers.compression.techniques.quantize.dynamic.onnx import quantize_dynamically
from workers.compression.techniques.quantize.static.onnx import quantize_statically

pytestmark = pytest.mark.long


def sentences(name: str, folder: Path, count: int) -> Dataset:
    """The first lines of one of the zoo's texts."""
    text = (fetch("sentence-pairs") / name).read_text("latin-1").splitlines()
    rows = [" ".join(line.split()[1:40]) for line in text if len(line.split()) > 6][:count]
    path = folder / f"{name}.csv"
    path.write_text("text\n" + "\n".join('"' + row.replace('"', "'") + '"' for row in rows), "utf-8")
    return open_dataset(DatasetFile(path=str(path), format=DatasetFormat.CSV))


def embeddings(model: OnnxModel, rows: Dataset) -> Array:
    return np.concatenate(
        [
            pool(model.run(batch.feeds)[0], batch.feeds, "mean")
            for batch in rows.batches(model.inputs, 16, model.tokenizer_file())
        ]
    )


def mean_cosine(left: Array, right: Array) -> float:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.mean((left * right).sum(axis=1) / lengths))


def test_static_integers_do_not_collapse(tmp_path: Path) -> None:
    path = minilm_onnx(tmp_path)
    original = open_model(path, Context(scratch=tmp_path))
    context = Context(scratch=tmp_path, calibration=sentences("lee_background.cor", tmp_path, 128))

    compressed = quantize_statically(open_model(path, context), StaticQuantize(samples=128), context)

    assert any("36 layers compute on integers" in change for change in context.changes)
    rows = sentences("pang_lee_polarity.cor", tmp_path, 96)
    assert mean_cosine(embeddings(original, rows), embeddings(compressed, rows)) > 0.996
    assert compressed.size_bytes() < 0.256 * original.size_bytes()


def test_dynamic_integers_need_no_rows_to_find_the_outliers(tmp_path: Path) -> None:
    path = minilm_onnx(tmp_path)
    original, context = open_model(path, Context(scratch=tmp_path)), Context(scratch=tmp_path)

    compressed = quantize_dynamically(open_model(path, context), DynamicQuantize(), context)

    rows = sentences("pang_lee_polarity.cor", tmp_path, 96)
    assert mean_cosine(embeddings(original, rows), embeddings(compressed, rows)) > 0.996
    assert compressed.size_bytes() < 22_855_682, "what onnxruntime's quantize_dynamic makes of the same file"
