"""Archives of scikit-learn's forests give back the file bit for bit at a fraction of what general coders need."""

import io
import random
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from workers.compression.archive.codecs import Codec
from workers.compression.archive.container import head
from workers.compression.archive.packing import pack
from workers.compression.archive.trees import forest
from workers.compression.archive.unpacking import read_index, unpack
from workers.compression.families.trees.writing import skops_bytes
from workers.compression.specs.errors import InvalidModel


def _missing() -> tuple[Any, Any]:
    rows, labels = load_wine(return_X_y=True)
    rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan
    return rows, labels


def _decimals() -> tuple[Any, Any]:
    rows, values = load_diabetes(return_X_y=True)
    return rows, values / 7


WINE, DIABETES = load_wine(return_X_y=True), load_diabetes(return_X_y=True)
FORESTS: dict[str, tuple[Any, tuple[Any, Any]]] = {
    "classifier": (RandomForestClassifier(10, random_state=0), WINE),
    "two classes": (RandomForestClassifier(5, random_state=0), (WINE[0], WINE[1] > 0)),
    "entropy": (RandomForestClassifier(5, criterion="entropy", random_state=0), WINE),
    "shallow": (RandomForestClassifier(5, max_depth=3, random_state=0), load_digits(return_X_y=True)),
    "missing values": (RandomForestClassifier(5, random_state=0), _missing()),
    "extra trees": (ExtraTreesClassifier(5, random_state=0), WINE),
    "regressor": (RandomForestRegressor(5, random_state=0), DIABETES),
    "leaves of five": (RandomForestRegressor(5, min_samples_leaf=5, random_state=0), DIABETES),
    "fractions": (RandomForestRegressor(5, random_state=0), _decimals()),
    "negative": (ExtraTreesRegressor(5, random_state=0), (DIABETES[0], DIABETES[1] - 150)),
    "booster": (GradientBoostingRegressor(n_estimators=10, random_state=0), DIABETES),
    "booster of classes": (GradientBoostingClassifier(n_estimators=5, random_state=0), WINE),
    "one tree": (DecisionTreeClassifier(random_state=0), WINE),
    "one leaf": (DecisionTreeRegressor(max_depth=1, min_samples_leaf=400), DIABETES),
}


@lru_cache
def _file(name: str) -> bytes:
    estimator, (rows, targets) = FORESTS[name]
    return skops_bytes(estimator.fit(rows, targets), zipfile.ZIP_STORED)


@pytest.mark.parametrize("name", FORESTS)
def test_forests_come_back_bit_for_bit(name: str) -> None:
    content = _file(name)
    coded = forest.encode(io.BytesIO(content))
    assert coded is not None
    assert forest.decode(memoryview(coded), len(content)) == content
    assert len(coded) < len(zstandard.ZstdCompressor(level=19).compress(content))


@pytest.mark.parametrize(("name", "times"), [("classifier", 4), ("regressor", 4)])
def test_columns_are_several_times_smaller_than_zstd(name: str, times: float) -> None:
    content = _file(name)
    coded = forest.encode(io.BytesIO(content))
    assert coded is not None
    assert times * len(coded) < len(zstandard.ZstdCompressor(level=19).compress(content))


@pytest.mark.parametrize(
    "content",
    [
        skops_bytes(FORESTS["one tree"][0].fit(*WINE), zipfile.ZIP_DEFLATED),
        skops_bytes(DecisionTreeClassifier(max_leaf_nodes=6, random_state=0).fit(*WINE), zipfile.ZIP_STORED),
        skops_bytes(DecisionTreeClassifier(class_weight={0: 0.3}, random_state=0).fit(*WINE), zipfile.ZIP_STORED),
        skops_bytes(HistGradientBoostingClassifier(max_iter=3).fit(*WINE), zipfile.ZIP_STORED),
    ],
    ids=["deflated", "best first", "weighted", "histogram booster"],
)
def test_other_files_are_archived_as_any_zip_is(content: bytes, tmp_path: Path) -> None:
    assert forest.encode(io.BytesIO(content)) is None
    (tmp_path / "m.skops").write_bytes(content)
    pack(tmp_path / "m.skops", tmp_path / "m.prsz")
    unpack(tmp_path / "m.prsz", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_a_forest_is_one_block_of_an_archive(tmp_path: Path) -> None:
    content = _file("classifier")
    (tmp_path / "m.skops").write_bytes(content)
    pack(tmp_path / "m.skops", tmp_path / "m.prsz")
    unpack(tmp_path / "m.prsz", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content
    with (tmp_path / "m.prsz").open("rb") as file:
        plan, block = read_index(file)
        file.seek(len(head(len(content))) + plan.coded)
        assert file.read(1) == bytes([Codec.TREES])
    assert block.decoded == len(content)


@pytest.mark.parametrize("name", ["two classes", "fractions", "leaves of five"])
def test_damaged_columns_are_refused_or_decode_to_as_many_bytes(name: str) -> None:
    content, rng = _file(name), random.Random(0)
    coded = forest.encode(io.BytesIO(content))
    assert coded is not None
    for _ in range(25):
        changed = bytearray(coded)
        changed[rng.randrange(len(coded))] ^= 1 << rng.randrange(8)
        _attempt(bytes(changed[: rng.choice([len(coded), rng.randrange(len(coded))])]), len(content))
        _attempt(coded[:3] + rng.randbytes(200), len(content))
        _attempt(coded[: len(coded) // 2] + rng.randbytes(400), len(content))


def _attempt(coded: bytes, size: int) -> None:
    try:
        assert len(forest.decode(memoryview(coded), size)) == size
    except InvalidModel:
        return


def test_lies_about_the_size_are_refused() -> None:
    coded = forest.encode(io.BytesIO(_file("one tree")))
    assert coded is not None
    for size in (0, 100, len(_file("one tree")) - 1, len(_file("one tree")) + 1, forest.MAX_BYTES + 1):
        with pytest.raises(InvalidModel):
            forest.decode(memoryview(coded), size)
