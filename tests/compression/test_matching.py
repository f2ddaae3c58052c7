import pytest

from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.matching import assign_inputs, batch_axis, fixed_batch
from workers.compression.specs.messages import Port


def port(name: str, *shape: int | str, dtype: str = "float32") -> Port:
    return Port(name=name, shape=shape, dtype=dtype)


COLUMNS = tuple(port(f"c{index}", 100) for index in range(64))
TEXTS = (port("text_a", 9, dtype="str"), port("text_b", 9, dtype="str"))


@pytest.mark.parametrize(
    ("shape", "sample", "axis"),
    [
        (("batch", 3, 8), (3, 8), 0),
        ((1, 3, "h", "w"), (3, 32, 32), 0),
        ((2, "batch", 128), (2, 128), 1),
        ((16, 3), (3,), 0),
        ((-1, -1), (7,), 0),
        (("batch", 3), (4,), None),
        (("batch", 3), (3, 1), None),
    ],
)
def test_the_batch_axis_is_the_free_one_that_leaves_room_for_a_row(
    shape: tuple[int | str, ...], sample: tuple[int, ...], axis: int | None
) -> None:
    assert batch_axis(port("x", *shape), sample) == axis


def test_names_decide_where_they_agree() -> None:
    inputs = (port("x", "n", 3), port("state", 2, "n", 4), port("rate", dtype="int64"))
    features = (port("rate"), port("state", 10, 2, 4), port("x", 10, 3), port("unused", 10))
    found = assign_inputs(DatasetFormat.NPZ, features, inputs)
    assert [(made.features, made.batch_axis) for made in found] == [(("x",), 0), (("state",), 1), (("rate",), None)]


def test_the_only_array_fills_the_only_input() -> None:
    (found,) = assign_inputs(DatasetFormat.NPZ, (port("input", 10, 3),), (port("x", "n", 3),))
    assert found.features == ("input",)


@pytest.mark.parametrize("shape", [("n", 64), ("n", "features"), (-1, -1), ("n", 1, 8, 8)])
def test_columns_stand_side_by_side_or_fill_a_fixed_shape(shape: tuple[int | str, ...]) -> None:
    (found,) = assign_inputs(DatasetFormat.CSV, COLUMNS, (port("x", *shape),))
    assert found.features == tuple(column.name for column in COLUMNS)


def test_text_fills_token_inputs() -> None:
    inputs = tuple(port(name, "n", "length", dtype="int64") for name in ("input_ids", "attention_mask"))
    assert len(assign_inputs(DatasetFormat.JSONL, TEXTS, inputs)) == 2


@pytest.mark.parametrize(
    ("dataset_format", "features", "inputs"),
    [
        (DatasetFormat.NPZ, (port("x", 10, 3),), ()),
        (DatasetFormat.NPZ, (port("x", 10, 4),), (port("x", "n", 3),)),
        (DatasetFormat.NPZ, (port("a", 10, 3), port("b", 10, 3)), (port("x", "n", 3),)),
        (DatasetFormat.NPZ, (port("a", 10, 3),), (port("a", "n", 3), port("b", "n", 3))),
        (DatasetFormat.NPZ, (port("x"),), (port("x", "n", 3),)),
        (DatasetFormat.CSV, COLUMNS[:63], (port("x", "n", 64),)),
        (DatasetFormat.CSV, COLUMNS[:63], (port("x", "n", 1, 8, 8),)),
        (DatasetFormat.CSV, COLUMNS, (port("x", "n", 1, "h", "w"),)),
        (DatasetFormat.JSONL, TEXTS, (port("pixels", "n", 3, 8, 8),)),
        (DatasetFormat.IMAGE_FOLDER, (port("image", 9, "h", "w", 3),), (port("a", "n", 3), port("b", "n", 3))),
    ],
)
def test_data_that_does_not_fit_is_a_mismatch_and_not_a_guess(
    dataset_format: DatasetFormat, features: tuple[Port, ...], inputs: tuple[Port, ...]
) -> None:
    with pytest.raises(DatasetMismatch):
        assign_inputs(dataset_format, features, inputs)


def test_a_batch_size_baked_into_the_graph_is_found() -> None:
    features = (port("a", 10, 3), port("b", 10, 2))
    one = assign_inputs(DatasetFormat.NPZ, features, (port("a", 4, 3), port("b", "n", 2)))
    assert fixed_batch(one) == 4
    two = assign_inputs(DatasetFormat.NPZ, features, (port("a", 4, 3), port("b", 5, 2)))
    with pytest.raises(DatasetMismatch):
        fixed_batch(two)
