import csv
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits
from tokenizers import Tokenizer, models, pre_tokenizers

from workers.compression.data import Batch, Dataset, first_feeds, inspect, open_dataset, pool, synthetic
from workers.compression.specs.errors import DatasetMismatch, EngineError
from workers.compression.specs.formats import DatasetFormat, Task
from workers.compression.specs.job import DatasetFields, Preprocessing
from workers.compression.specs.messages import DatasetFile, DatasetInspection, Port

PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS = PIXELS[:300]
LABELS = LABELS[:300]
FLAT = (Port(name="x", shape=("n", 64), dtype="float32"),)
SQUARE = (Port(name="x", shape=("n", 1, 8, 8), dtype="float32"),)


def looked_at(path: Path, **fields: Any) -> DatasetInspection:
    return inspect(path, path.name, DatasetFields(**fields), path.parent)


def opened(path: Path, part: tuple[float, float] = (0.0, 1.0), seed: int = 0, **fields: Any) -> Dataset:
    found = looked_at(path, **fields)
    file = DatasetFile(path=str(path), format=found.format, fields=DatasetFields(**fields), part=part, split_seed=seed)
    return open_dataset(file)


def everything(dataset: Dataset, inputs: tuple[Port, ...], tokenizer: Path | None = None) -> Batch:
    return next(dataset.batches(inputs, dataset.rows, tokenizer))


def write_npz(path: Path) -> Path:
    np.savez(path, x=PIXELS, target=LABELS)
    return path


def write_deflated(path: Path) -> Path:
    np.savez_compressed(path, input=np.asfortranarray(PIXELS.astype(np.float32)), target=LABELS)
    return path


def write_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p{index}" for index in range(64)), "target"])
        writer.writerows([*row, label] for row, label in zip(PIXELS, LABELS, strict=True))
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.table({f"p{index}": PIXELS[:, index] for index in range(64)} | {"target": LABELS}), path)
    return path


def write_lists(path: Path) -> Path:
    pq.write_table(pa.table({"x": list(PIXELS), "target": LABELS}), path)
    return path


def write_jsonl(path: Path) -> Path:
    rows = ({"inputs": {"x": row.tolist()}, "target": int(label)} for row, label in zip(PIXELS, LABELS, strict=True))
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def write_images(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for index, (row, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
            archive.writestr(f"digits/{label}/{index:04}.png", png(row.reshape(8, 8)))
        archive.writestr("digits/README.md", "scanned")
    return path


WRITERS = {
    DatasetFormat.NPZ: write_npz,
    "deflated npz": write_deflated,
    DatasetFormat.CSV: write_csv,
    DatasetFormat.PARQUET: write_parquet,
    "parquet of lists": write_lists,
    DatasetFormat.JSONL: write_jsonl,
    DatasetFormat.IMAGE_FOLDER: write_images,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_digits_come_out_of_every_format(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / "digits.npz" if "npz" in kind else tmp_path / "digits")
    found = looked_at(path)
    assert (found.rows, found.task) == (300, Task.CLASSIFICATION)
    assert found.classes == tuple("0123456789")
    images = found.format is DatasetFormat.IMAGE_FOLDER
    dataset = opened(path, preprocessing=Preprocessing(scale=1.0) if images else Preprocessing())
    batch = everything(dataset, SQUARE if images else FLAT)
    rows = batch.feeds["x"].reshape(300, 64)
    assert batch.feeds["x"].dtype == np.float32
    order = np.lexsort(rows.T)
    wanted = np.lexsort(PIXELS.T)
    np.testing.assert_array_equal(rows[order], PIXELS[wanted])
    np.testing.assert_array_equal(batch.targets[order], LABELS[wanted])


def test_columns_fill_the_fixed_shape_of_an_image_model(tmp_path: Path) -> None:
    assert everything(opened(write_csv(tmp_path / "d")), SQUARE).feeds["x"].shape == (300, 1, 8, 8)


@pytest.mark.parametrize("seed", [0, 1])
def test_parts_of_one_dataset_share_no_row_and_keep_the_shares_of_the_classes(seed: int, tmp_path: Path) -> None:
    path = write_npz(tmp_path / "d.npz")
    parts = [opened(path, part, seed) for part in ((0.0, 0.5), (0.5, 0.8), (0.8, 1.0))]
    assert sorted(np.concatenate([part.order for part in parts]).tolist()) == list(range(300))
    for part in parts:
        counts = np.bincount(part.targets, minlength=10) / part.rows
        np.testing.assert_allclose(counts, np.bincount(LABELS) / 300, atol=0.03)
    assert opened(path, (0.0, 0.5), seed).order.tolist() == parts[0].order.tolist()
    assert opened(path, (0.0, 0.5), seed + 1).order.tolist() != parts[0].order.tolist()


def test_a_limited_dataset_still_holds_every_class(tmp_path: Path) -> None:
    dataset = opened(write_npz(tmp_path / "d.npz")).limited(30)
    assert np.bincount(dataset.targets, minlength=10).min() >= 1
    assert [len(batch) for batch in dataset.batches(FLAT, 16, None)] == [16, 14]


def test_a_fixed_batch_size_is_kept_and_incomplete_batches_are_left_out(tmp_path: Path) -> None:
    dataset = opened(write_npz(tmp_path / "d.npz")).limited(30)
    inputs = (Port(name="x", shape=(8, 64), dtype="float32"),)
    assert [len(batch) for batch in dataset.batches(inputs, 16, None)] == [8, 8, 8]
    with pytest.raises(DatasetMismatch):
        next(dataset.limited(7).batches(inputs, 16, None))


@pytest.mark.parametrize(
    ("target", "task", "classes"),
    [
        (np.array(["cat", "ant", "cat", "bee"]), Task.CLASSIFICATION, ("ant", "bee", "cat")),
        (np.array([1, 3, 1, 0]), Task.CLASSIFICATION, ("0", "1", "2", "3")),
        (np.array([-1, 1, 1, -1]), Task.CLASSIFICATION, ("-1", "1")),
        (np.array([True, False, True, True]), Task.CLASSIFICATION, ("0", "1")),
        (np.array([0.5, 1.25, 2.0, 3.0]), Task.REGRESSION, ()),
        (np.array([[0.5], [1.25], [2.0], [3.0]]), Task.REGRESSION, ()),
        (np.array([0.0, 1.0, 1.0, 0.0]), Task.CLASSIFICATION, ("0", "1")),
        (np.array([151.0, 75.0, 141.0, 206.0]), Task.REGRESSION, ()),
    ],
)
def test_labels_tell_the_task(target: np.ndarray, task: Task, classes: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 2)), target=target)
    found = looked_at(tmp_path / "d.npz")
    assert (found.task, found.classes) == (task, classes)


def test_whole_numbers_in_text_are_values_when_nearly_all_differ(tmp_path: Path) -> None:
    rows, values = load_diabetes(return_X_y=True)
    lines = ["a,progress", *(f"{row[0]},{int(value)}" for row, value in zip(rows, values, strict=True))]
    (tmp_path / "d.csv").write_text("\n".join(lines))
    assert looked_at(tmp_path / "d.csv", target_column="progress").task is Task.REGRESSION
    assert looked_at(tmp_path / "d.csv", target_column="progress", task="classification").task is Task.CLASSIFICATION


def test_no_target_means_fidelity(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 2)))
    found = looked_at(tmp_path / "d.npz")
    assert (found.task, found.target) == (Task.FIDELITY, None)


def test_constants_and_states_reach_their_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((6, 5)), state=np.arange(6 * 2 * 3).reshape(6, 2, 3), sr=np.array(16000))
    inputs = (
        Port(name="x", shape=("n", "samples"), dtype="float32"),
        Port(name="state", shape=(2, "n", 3), dtype="float32"),
        Port(name="sr", shape=(), dtype="int64"),
    )
    batch = next(opened(tmp_path / "d.npz").batches(inputs, 4, None))
    assert {name: values.shape for name, values in batch.feeds.items()} == {"x": (4, 5), "state": (2, 4, 3), "sr": ()}
    assert batch.feeds["sr"] == 16000


def test_fractions_never_become_whole_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.full((4, 2), 0.5))
    with pytest.raises(DatasetMismatch):
        everything(opened(tmp_path / "d.npz"), (Port(name="x", shape=("n", 2), dtype="int64"),))


def test_values_beyond_an_integer_type_are_a_mismatch(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.full((4, 2), 300))
    with pytest.raises(DatasetMismatch):
        everything(opened(tmp_path / "d.npz"), (Port(name="x", shape=("n", 2), dtype="uint8"),))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    words = ["[PAD]", "[UNK]", "good", "bad", "film", "a", "very"]
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


TOKENS = tuple(Port(name=name, shape=("n", "t"), dtype="int64") for name in ("input_ids", "attention_mask"))


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_text_is_tokenised_padded_and_cut(tmp_path: Path, tokenizer: Path) -> None:
    rows = [{"text": "a very good film", "target": "pos"}, {"text": "bad", "target": "neg"}]
    dataset = opened(write_lines(tmp_path / "d", *rows), preprocessing=Preprocessing(max_length=3))
    assert dataset.classes == ("neg", "pos")
    batch = everything(dataset, TOKENS, tokenizer)
    made = dict(zip(batch.targets.tolist(), batch.feeds["input_ids"].tolist(), strict=True))
    assert made == {1: [5, 6, 2], 0: [3, 0, 0]}
    assert batch.feeds["attention_mask"].sum() == 4
    fixed = tuple(Port(name=port.name, shape=("n", 6), dtype="int32") for port in TOKENS)
    ids = everything(dataset, fixed, tokenizer).feeds["input_ids"]
    assert (ids.shape, ids.dtype) == ((2, 6), np.int32)


def test_pairs_with_scores_are_stacked_and_pairs_with_classes_are_one_sequence(tmp_path: Path, tokenizer: Path) -> None:
    scored = [{"text_a": "good", "text_b": "bad film", "target": 0.2}, {"text_a": "a", "text_b": "a", "target": 0.9}]
    dataset = opened(write_lines(tmp_path / "s", *scored))
    assert dataset.task is Task.SIMILARITY
    batch = everything(dataset, TOKENS, tokenizer)
    assert batch.pairs
    assert len(batch) == len(batch.targets) == 2
    assert batch.feeds["input_ids"].shape == (4, 2)
    first = int(np.argmin(batch.targets))
    assert batch.feeds["input_ids"][[first, first + 2]].tolist() == [[2, 0], [3, 4]]
    labelled = [row | {"target": "same" if row["target"] > 0.5 else "other"} for row in scored]
    single = everything(opened(write_lines(tmp_path / "c", *labelled)), TOKENS, tokenizer)
    assert not single.pairs
    assert single.feeds["input_ids"].shape == (2, 3)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_first_feeds_have_exactly_the_size_asked_for(size: int, tmp_path: Path, tokenizer: Path) -> None:
    row = {"text_a": "good", "text_b": "bad film", "target": 0.25}
    dataset = opened(write_lines(tmp_path / "d", row, row))
    assert len(first_feeds(dataset, TOKENS, tokenizer, size)["input_ids"]) == size


def test_text_without_a_tokenizer_says_what_is_missing(tmp_path: Path) -> None:
    dataset = opened(write_lines(tmp_path / "d", {"text": "good"}))
    with pytest.raises(DatasetMismatch, match=r"tokenizer\.json"):
        everything(dataset, TOKENS)


def test_pooling_ignores_padding() -> None:
    hidden = np.array([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]], np.float32)
    feeds = {"attention_mask": np.array([[1, 1, 0], [1, 1, 1]])}
    assert pool(hidden, feeds, "mean").tolist() == [[2.0], [4.0]]
    assert pool(hidden, feeds, "cls").tolist() == [[1.0], [2.0]]
    assert pool(hidden, feeds, "none") is hidden
    assert pool(hidden[:, 0], feeds, "mean").shape == (2, 1)


def test_images_are_resized_scaled_and_normalised(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d", "w") as archive:
        for name, value in (("a/1.png", 255), ("b/2.png", 0)):
            archive.writestr(name, png(np.full((10, 20, 3), value)))
    dataset = opened(
        tmp_path / "d", preprocessing=Preprocessing(size=(4, 6), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    )
    first = (Port(name="x", shape=("n", 3, "h", "w"), dtype="float32"),)
    batch = everything(dataset, first)
    assert batch.feeds["x"].shape == (2, 3, 4, 6)
    assert sorted(np.unique(batch.feeds["x"]).tolist()) == [-1.0, 1.0]
    last = (Port(name="x", shape=("n", 4, 6, 3), dtype="uint8"),)
    plain = everything(opened(tmp_path / "d"), last)
    assert plain.feeds["x"].shape == (2, 4, 6, 3)
    assert plain.feeds["x"].max() == 255
    with pytest.raises(DatasetMismatch):
        everything(dataset, (Port(name="x", shape=("n", 3, 8, 8), dtype="float32"),))


INPUTS = (
    Port(name="input_ids", shape=("n", "t"), dtype="int64"),
    Port(name="attention_mask", shape=("n", "t"), dtype="int64"),
    Port(name="pixels", shape=("n", 3, "h", "w"), dtype="float32"),
    Port(name="state", shape=(2, "n", 4), dtype="float32"),
    Port(name="sr", shape=(), dtype="int64"),
)


def test_made_up_rows_are_seeded_harmless_and_fit() -> None:
    shapes = {"pixels": (1, 3, 16, 16), "input_ids": (7,)}
    dataset = synthetic(INPUTS, 5, 3, shapes)
    batch = everything(dataset, INPUTS)
    assert dataset.synthetic
    assert dataset.task is Task.FIDELITY
    assert {name: values.shape for name, values in batch.feeds.items()} == {
        "input_ids": (5, 7),
        "attention_mask": (5, 32),
        "pixels": (5, 3, 16, 16),
        "state": (2, 5, 4),
        "sr": (),
    }
    assert 0 < batch.feeds["input_ids"].min() <= batch.feeds["input_ids"].max() < 100
    assert batch.feeds["attention_mask"].all()
    assert not batch.feeds["state"].any()
    again = everything(synthetic(INPUTS, 5, 3, shapes), INPUTS)
    np.testing.assert_array_equal(batch.feeds["pixels"], again.feeds["pixels"])


def test_made_up_rows_fill_a_fixed_batch_and_refuse_shapes_that_do_not_fit() -> None:
    fixed = (Port(name="x", shape=(8, 3), dtype="float32"),)
    assert len(next(synthetic(fixed, 1, 0, {}).batches(fixed, 1, None))) == 8
    with pytest.raises(DatasetMismatch):
        synthetic(fixed, 1, 0, {"x": (8, 4)})
    with pytest.raises(DatasetMismatch):
        synthetic((Port(name="x", shape=("n",), dtype="string"),), 1, 0, {})


def table(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def images(**entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def huge_png() -> bytes:
    out = io.BytesIO()
    Image.new("1", (6000, 6000)).save(out, "PNG")
    return out.getvalue()


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "csv without rows": (lambda: b"a,b\n", "dataset_empty"),
    "csv ragged": (lambda: b"a,b\n1,2\n1\n", "csv_ragged"),
    "csv of words": (lambda: b"a,b\n1,x\n", "csv_not_numeric"),
    "csv infinite": (lambda: b"a,b\n1,inf\n", "csv_not_finite"),
    "csv without names": (lambda: b"1.5,2\n3,4\n", "csv_header"),
    "csv names twice": (lambda: b"a,a\n3,4\n", "csv_header"),
    "csv latin-1": (lambda: b"a,b\n" + b"1,2\n" * 2000 + b"\xe9,2\n", "csv_encoding"),
    "csv endless line": (lambda: b"a,b\n" + b"1" * (1 << 21), "csv_line_too_long"),
    "csv endless field": (lambda: b'a,b\n"' + b"1\n" * 200_000 + b'",2\n', "csv_invalid"),
    "csv only a target": (lambda: b"target\n1\n", "dataset_empty"),
    "jsonl deep": (lambda: b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}", "json_too_deep"),
    "jsonl key twice": (lambda: b'{"a": 1, "a": 2}', "json_duplicate_key"),
    "jsonl nan": (lambda: b'{"a": NaN}', "json_not_finite"),
    "jsonl big integer": (lambda: b'{"a": ' + b"9" * 5000 + b"}", "json_number_too_long"),
    "jsonl other fields": (lambda: b'{"a": 1}\n{"b": 1}', "jsonl_inconsistent"),
    "jsonl other shapes": (lambda: b'{"inputs": {"a": [1]}}\n{"inputs": {"a": [1, 2]}}', "jsonl_inconsistent"),
    "jsonl of words": (lambda: b'{"a": "x"}', "column_not_numeric"),
    "jsonl of nulls": (lambda: b'{"a": null}', "jsonl_value"),
    "jsonl list in a line": (lambda: b'{"a": 1}\n[1]', "jsonl_invalid"),
    "parquet broken": (lambda: b"PAR1" + bytes(100) + b"PAR1", "parquet_invalid"),
    "parquet structs": (lambda: table(a=[{"b": 1}]), "parquet_column"),
    "parquet nested lists": (lambda: table(a=[[[1]]]), "parquet_column"),
    "parquet ragged lists": (lambda: table(a=[[1], [1, 2, 3]]), "parquet_column"),
    "parquet nulls": (lambda: table(a=[1, None]), "parquet_column"),
    "parquet empty": (lambda: table(a=pa.array([], pa.float32())), "dataset_empty"),
    "parquet only a target": (lambda: table(target=[1, 2]), "dataset_empty"),
    "npz rows differ": (lambda: npz(x=np.zeros((3, 2)), target=np.zeros(4)), "npz_rows"),
    "npz only constants": (lambda: npz(sr=np.array(1)), "dataset_empty"),
    "npz words": (lambda: npz(x=np.array(["a"])), "column_not_numeric"),
    "target not finite": (lambda: npz(x=np.zeros(2), target=np.array([0.5, np.inf])), "target_invalid"),
    "too many pixels": (lambda: images(**{"a/1.png": huge_png()}), "image_too_large"),
    "script as image": (lambda: images(**{"a/1.png": eps()}), "image_invalid"),
    "images half in folders": (lambda: images(**{"a/1.png": png(np.zeros((2, 2))), "2.png": b""}), "image_invalid"),
    "archive beside images": (
        lambda: images(**{"a/1.png": png(np.zeros((2, 2))), "b.zip": b""}),
        "archive_entry_refused",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_data_is_refused_with_the_word_for_it(case: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[case]
    (tmp_path / "upload").write_bytes(content())
    with pytest.raises(EngineError) as refusal:
        looked_at(tmp_path / "upload")
    assert refusal.value.reason == reason


def test_a_small_parquet_that_decodes_to_gigabytes_is_stopped(tmp_path: Path) -> None:
    rows = 11_000_000
    pq.write_table(
        pa.table({"a": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), [1.0])}), tmp_path / "d"
    )
    assert (tmp_path / "d").stat().st_size < 1 << 20
    with pytest.raises(EngineError) as refusal:
        looked_at(tmp_path / "d")
    assert refusal.value.reason == "dataset_too_large"


def test_a_named_target_has_to_be_there(tmp_path: Path) -> None:
    for writer in (write_csv, write_parquet, write_jsonl):
        with pytest.raises(EngineError) as refusal:
            looked_at(writer(tmp_path / "d"), target_column="label")
        assert refusal.value.reason == "target_missing"


def test_missing_cells_are_reported_and_an_unnamed_index_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "d").write_text(",a,b,target\n0,1,2,x\n1,,4,y\n")
    found = looked_at(tmp_path / "d")
    assert [feature.name for feature in found.features] == ["a", "b"]
    assert len(found.warnings) == 2
