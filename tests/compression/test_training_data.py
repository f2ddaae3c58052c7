"""Rows for training: parts, orders, shards, resumed and bucketed batches, made ahead by a thread."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, models, pre_tokenizers

from workers.compression.data import Batch, Dataset, open_dataset
from workers.compression.datasets.bucketing import WINDOW_BATCHES
from workers.compression.datasets.prefetching import prefetched
from workers.compression.specs.errors import DatasetMismatch, InvalidDataset
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import DatasetFile, Port

PIXELS, LABELS = load_digits(return_X_y=True)
FLAT = (Port(name="x", shape=("n", 64), dtype="float32"),)
TOKENS = tuple(Port(name=name, shape=("n", "t"), dtype="int64") for name in ("input_ids", "attention_mask"))


@pytest.fixture
def digits(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "digits.npz", x=PIXELS[:300], target=LABELS[:300])
    return open_dataset(DatasetFile(path=str(tmp_path / "digits.npz"), format=DatasetFormat.NPZ))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "film": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@pytest.fixture
def texts(tmp_path: Path) -> Dataset:
    random = np.random.default_rng(0)
    rows = [{"text": "film " * int(length), "target": int(length)} for length in random.integers(1, 60, 700)]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return open_dataset(DatasetFile(path=str(tmp_path / "d.jsonl"), format=DatasetFormat.JSONL))


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one.targets, other.targets)
        for name in one.feeds:
            np.testing.assert_array_equal(one.feeds[name], other.feeds[name])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_parts_share_no_row_and_both_hold_the_classes_in_their_shares(digits: Dataset, share: float) -> None:
    kept, aside = digits.parts(share)
    assert sorted([*kept.order, *aside.order]) == list(range(300))
    assert aside.rows == 300 * share
    np.testing.assert_allclose(aside.class_counts() / aside.rows, digits.class_counts() / 300, atol=0.05)


def test_parts_of_few_rows_hold_one_row_each_or_are_refused(digits: Dataset) -> None:
    kept, aside = digits.limited(2).parts(0.01)
    assert (kept.rows, aside.rows) == (1, 1)
    assert [part.rows for part in digits.limited(3).parts(0.0)] == [3, 0]
    with pytest.raises(InvalidDataset) as refusal:
        digits.limited(1).parts(0.5)
    assert refusal.value.reason == "too_few_rows"


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(digits: Dataset) -> None:
    first = digits.shuffled(7, 0)
    assert sorted(first.order.tolist()) == sorted(digits.order.tolist())
    assert first.order.tolist() == digits.shuffled(3, 9).shuffled(7, 0).order.tolist()
    for seed, epoch in ((7, 1), (8, 0), (0, 7)):
        assert first.order.tolist() != digits.shuffled(seed, epoch).order.tolist()


@pytest.mark.parametrize(("rows", "count"), [(300, 4), (10, 3), (2, 3), (1, 2)])
def test_shards_are_equally_long_and_hold_every_row(digits: Dataset, rows: int, count: int) -> None:
    whole = digits.limited(rows).shuffled(0, 0)
    shards = [whole.shard(rank, count) for rank in range(count)]
    assert len({shard.rows for shard in shards}) == 1
    seen = np.concatenate([shard.order for shard in shards])
    assert set(seen) == set(whole.order)
    assert len(seen) - rows < count


@pytest.mark.parametrize("inputs", [FLAT, (Port(name="x", shape=(16, 64), dtype="float32"),)], ids=["free", "fixed"])
def test_batches_go_on_where_they_were_left(digits: Dataset, inputs: tuple[Port, ...]) -> None:
    every = list(digits.batches(inputs, 16, None))
    for start in (0, 1, 17, len(every), len(every) + 5):
        assert_same(list(digits.batches(inputs, 16, None, start=start)), every[start:])


def test_rows_before_the_start_are_never_read(digits: Dataset) -> None:
    read: list[int] = []
    wrapped = digits.source.read

    def counting(rows: Any) -> Any:
        read.extend(rows.tolist())
        return wrapped(rows)

    object.__setattr__(digits.source, "read", counting)
    next(digits.batches(FLAT, 16, None, start=10))
    assert read == digits.order[160:176].tolist()


def test_bucketed_batches_hold_every_row_once_with_less_padding(texts: Dataset, tokenizer: Path) -> None:
    mixed = texts.shuffled(0, 0)
    plain = list(mixed.batches(TOKENS, 8, tokenizer))
    sorted_by_length = list(mixed.batches(TOKENS, 8, tokenizer, bucketing=True))
    assert len(sorted_by_length) == len(plain)
    for batches in (plain, sorted_by_length):
        lengths = np.concatenate([batch.feeds["attention_mask"].sum(axis=1) for batch in batches])
        np.testing.assert_array_equal(lengths, np.concatenate([batch.targets for batch in batches]))
    assert np.concatenate([batch.targets for batch in sorted_by_length]).sum() == texts.targets.sum()
    cost, before = (sum(batch.feeds["input_ids"].size for batch in batches) for batches in (sorted_by_length, plain))
    assert cost < 0.7 * before
    widths = [batch.feeds["input_ids"].shape[1] for batch in sorted_by_length[:WINDOW_BATCHES]]
    assert widths != sorted(widths)


def test_bucketed_batches_are_the_same_for_the_same_epoch_and_resume_anywhere(texts: Dataset, tokenizer: Path) -> None:
    every = list(texts.shuffled(5, 2).batches(TOKENS, 8, tokenizer, bucketing=True))
    for start in (0, 3, WINDOW_BATCHES, WINDOW_BATCHES + 1, len(every) - 1, len(every)):
        again = texts.shuffled(5, 2).batches(TOKENS, 8, tokenizer, start=start, bucketing=True)
        assert_same(list(again), every[start:])
    other = list(texts.shuffled(5, 3).batches(TOKENS, 8, tokenizer, bucketing=True))
    assert [batch.targets.tolist() for batch in other] != [batch.targets.tolist() for batch in every]


def test_bucketing_leaves_rows_of_one_length_as_they_are(digits: Dataset) -> None:
    assert_same(list(digits.batches(FLAT, 16, None, bucketing=True)), list(digits.batches(FLAT, 16, None)))


def prefetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [1, 2, 50])
def test_batches_made_ahead_come_in_the_same_order(digits: Dataset, depth: int) -> None:
    assert_same(list(prefetched(digits.batches(FLAT, 16, None), depth)), list(digits.batches(FLAT, 16, None)))
    assert not prefetching_threads()


def test_what_making_a_batch_raises_is_raised_after_the_batches_before_it(digits: Dataset) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    items = prefetched(failing())
    assert next(items) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    with pytest.raises(DatasetMismatch):
        next(prefetched(digits.batches((Port(name="x", shape=("n", 3), dtype="float32"),), 4, None)))
    assert not prefetching_threads()


@pytest.mark.parametrize("depth", [1, 2])
def test_a_consumer_that_stops_early_leaves_no_thread_and_no_open_batches(depth: int) -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    for taken in range(20):
        closed.clear()
        items = prefetched(endless(), depth)
        for number, item in zip(range(taken + 1), items, strict=False):
            assert item == number
        items.close()
        assert not prefetching_threads()
        assert closed.is_set()


def test_what_is_never_asked_for_starts_no_thread(digits: Dataset) -> None:
    prefetched(digits.batches(FLAT, 16, None))
    assert not prefetching_threads()
