"""Tables that do not fit into the cache are read piece by piece, in an order that decodes each piece about once."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workers.compression.data import Dataset, inspect, open_dataset
from workers.compression.datasets import parquet_pieces
from workers.compression.datasets.labels import label
from workers.compression.datasets.parquet_table import open_table
from workers.compression.datasets.splitting import stratified_order
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import DatasetFormat, Task
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import DatasetFile, Port

GROUPS, GROUP_ROWS, WIDTH = 40, 400, 50
ROWS = GROUPS * GROUP_ROWS
BYTES = ROWS * WIDTH * 8
CACHE = BYTES // 8
INPUTS = (Port(name="x", shape=("n", WIDTH), dtype="float32"),)


def write(path: Path, group_rows: int = GROUP_ROWS) -> Path:
    """Each row holds its own number in every column."""
    numbers = np.arange(float(ROWS))
    columns = {f"p{index}": numbers for index in range(WIDTH)}
    pq.write_table(pa.table(columns | {"target": numbers.astype(int) % 3}), path, row_group_size=group_rows)
    return path


def opened(path: Path, cache_bytes: int = CACHE) -> Dataset:
    source = open_table(path, DatasetFields(), cache_bytes)
    labels = label(source, None)
    return Dataset(source, labels, stratified_order(source.rows, labels, 0))


def numbers(dataset: Dataset) -> list[int]:
    """The rows' own numbers, in the order in which they come in batches."""
    return [int(row[0]) for batch in dataset.batches(INPUTS, 32, None) for row in batch.feeds["x"]]


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The row groups that were decoded, in order."""
    seen: list[list[int]] = []
    decode = parquet_pieces.decode

    def noting(file: object, groups: list[int], names: list[str]) -> dict[str, object]:
        seen.append(groups)
        return decode(file, groups, names)

    monkeypatch.setattr(parquet_pieces, "decode", noting)
    return seen


def test_an_epoch_over_a_large_table_holds_little_more_than_the_cache(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / "d")).shuffled(0, 0)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        seen = []
        for batch in dataset.batches(INPUTS, 32, None):
            seen.append(int(batch.feeds["x"][0, 0]))
            assert pa.total_allocated_bytes() - before < CACHE
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(seen) == ROWS // 32
    assert held < BYTES / 2


def test_an_epoch_decodes_each_piece_about_once_and_holds_every_row_once(
    tmp_path: Path, decodings: list[list[int]]
) -> None:
    dataset = opened(write(tmp_path / "d"))
    order = numbers(dataset.shuffled(0, 0))
    assert sorted(order) == list(range(ROWS))
    pieces = len(dataset.source.groups)
    assert pieces > dataset.source.groups_mixed > 1
    assert len(decodings) < 1.2 * pieces
    far = np.abs(np.diff(order)) > GROUP_ROWS
    assert far.mean() > 0.3


def test_the_order_of_a_large_table_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path / "d"))
    kept, aside = dataset.parts(0.1)
    first = kept.shuffled(1, 4)
    assert first.order.tolist() == opened(tmp_path / "d").parts(0.1)[0].shuffled(1, 4).order.tolist()
    assert first.order.tolist() != kept.shuffled(1, 5).order.tolist()
    assert sorted([*first.order, *aside.order]) == list(range(ROWS))
    assert numbers(first.limited(100)) == sorted(first.order[:100])


def test_rows_set_aside_and_rows_to_judge_on_decode_each_piece_once(tmp_path: Path, decodings: list[list[int]]) -> None:
    dataset = opened(write(tmp_path / "d"))
    for chosen in (dataset.parts(0.2)[1], dataset.limited(2000)):
        decodings.clear()
        np.testing.assert_allclose(chosen.class_counts() / chosen.rows, 1 / 3, atol=0.01)
        assert numbers(chosen) == sorted(chosen.order)
        assert len(decodings) <= len(dataset.source.groups)


@pytest.mark.parametrize("group_rows", [20, ROWS])
def test_tiny_and_huge_row_groups_give_the_same_rows(
    group_rows: int, tmp_path: Path, decodings: list[list[int]]
) -> None:
    dataset = opened(write(tmp_path / "d", group_rows))
    assert sorted(numbers(dataset.shuffled(0, 0))) == list(range(ROWS))
    assert len(decodings) <= 1.2 * len(dataset.source.groups)


def test_a_table_that_fits_is_decoded_once_and_shuffled_as_a_whole(tmp_path: Path, decodings: list[list[int]]) -> None:
    dataset = opened(write(tmp_path / "d"), cache_bytes=2 * BYTES)
    assert sorted(numbers(dataset.shuffled(0, 0))) == list(range(ROWS))
    assert numbers(dataset) == dataset.order.tolist()
    assert len(decodings) == 1


def test_a_fault_behind_the_first_piece_is_found_when_the_file_is_inspected(tmp_path: Path) -> None:
    ragged = pa.table({"x": [[1.0, 2.0]] * 500 + [[1.0, 2.0, 3.0]] * 500, "target": [0, 1] * 500})
    nulls = pa.table({"x": [1] * 999 + [None], "target": [0, 1] * 500})
    for table in (ragged, nulls):
        pq.write_table(table, tmp_path / "d", row_group_size=100)
        with pytest.raises(InvalidDataset) as refusal:
            inspect(tmp_path / "d", "d", DatasetFields(), tmp_path)
        assert refusal.value.reason == "parquet_column"


def test_text_in_row_groups_keeps_its_labels(tmp_path: Path) -> None:
    texts = [f"row {index}" for index in range(1000)]
    labels = [f"class {index % 4}" for index in range(1000)]
    table = pa.table({"text": texts, "target": pa.array(labels).dictionary_encode()})
    pq.write_table(table, tmp_path / "d", row_group_size=64)
    dataset = open_dataset(DatasetFile(path=str(tmp_path / "d"), format=DatasetFormat.PARQUET))
    assert dataset.task is Task.CLASSIFICATION
    rows = dataset.shuffled(0, 0).order[:50]
    assert dataset.source.read(rows)["text"].tolist() == [texts[row] for row in rows]
    assert [dataset.classes[index] for index in dataset.labels.targets[rows]] == [labels[row] for row in rows]
