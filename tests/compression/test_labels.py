"""Labels that are missing or cannot be learnt from are named, with what to do about it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workers.compression.data import Dataset, inspect, open_dataset
from workers.compression.datasets.balance import check_trainable
from workers.compression.specs.errors import InvalidDataset
from workers.compression.specs.formats import DatasetFormat, Task
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import DatasetFile

WORDS = ["yes", "no", None, "yes", None]
NUMBERS = [1, 0, None, 1, None]


def write_csv(path: Path, labels: list[object]) -> None:
    path.write_text("a,target\n" + "".join(f"1,{'' if label is None else label}\n" for label in labels))


def write_jsonl(path: Path, labels: list[object]) -> None:
    path.write_text("\n".join(json.dumps({"a": 1, "target": label}) for label in labels))


def write_parquet(path: Path, labels: list[object]) -> None:
    pq.write_table(pa.table({"a": [1] * len(labels), "target": labels}), path)


def write_npz(path: Path, labels: list[object]) -> None:
    texts = any(isinstance(label, str) for label in labels)
    blank = "" if texts else np.nan
    with path.open("wb") as file:
        np.savez(file, a=np.ones(len(labels)), target=[blank if label is None else label for label in labels])


@pytest.mark.parametrize("labels", [WORDS, NUMBERS, [0.5, 1.5, None, 2.5, None], [True, False, None, True, None]])
@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet, write_npz])
def test_rows_without_a_label_are_counted_and_the_first_one_is_named(
    write: Callable[[Path, list[object]], None], labels: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "upload"
    write(path, labels)
    with pytest.raises(InvalidDataset) as refusal:
        inspect(path, "upload", DatasetFields(), tmp_path)
    assert refusal.value.reason == "target_missing_rows"
    assert "missing in 2 of 5 rows (first: row 3)" in refusal.value.detail
    assert "unlabelled" in str(refusal.value.hint)
    assert inspect(path, "upload", DatasetFields(task="fidelity"), tmp_path).task is Task.FIDELITY


def labelled(path: Path, target: object, part: tuple[float, float] = (0.0, 1.0)) -> Dataset:
    values = np.asarray(target)
    np.savez(path / "d.npz", x=np.arange(2.0 * len(values)).reshape(-1, 2), target=values)
    return open_dataset(DatasetFile(path=str(path / "d.npz"), format=DatasetFormat.NPZ, part=part))


def test_balanced_classes_values_and_unlabelled_rows_raise_no_doubt(tmp_path: Path) -> None:
    assert check_trainable(labelled(tmp_path, [0, 1] * 5)) == ()
    assert check_trainable(labelled(tmp_path, [0.5, 1.5, 2.25])) == ()
    np.savez(tmp_path / "d.npz", x=np.ones((3, 2)))
    unlabelled = open_dataset(DatasetFile(path=str(tmp_path / "d.npz"), format=DatasetFormat.NPZ))
    assert check_trainable(unlabelled) == ()


def test_rows_of_a_single_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="class cat") as refusal:
        check_trainable(labelled(tmp_path, ["cat"] * 8))
    assert refusal.value.reason == "single_class"


def test_a_class_that_the_split_leaves_too_few_rows_is_named(tmp_path: Path) -> None:
    targets = ["cat"] * 20 + ["dog"] * 20 + ["ant", "bee"]
    with pytest.raises(InvalidDataset, match="the classes ant, bee") as refusal:
        check_trainable(labelled(tmp_path, targets, (0.0, 0.5)))
    assert refusal.value.reason == "too_few_rows_of_class"


def test_classes_without_any_row_are_told(tmp_path: Path) -> None:
    [warning] = check_trainable(labelled(tmp_path, [0, 3] * 5))
    assert "no row of the classes 1, 2" in warning


@pytest.mark.parametrize(("rows", "warned"), [(20, False), (21, True)])
def test_classes_of_very_different_size_ask_for_weights(rows: int, warned: bool, tmp_path: Path) -> None:
    warnings = check_trainable(labelled(tmp_path, ["common"] * rows + ["rare"] * 2))
    assert bool(warnings) == warned
    if warned:
        assert "common has 21" in warnings[0]
        assert 'class_weights "balanced"' in warnings[0]
