"""A step that was cut off makes only what is left, and ends with the forms of one that was left alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from workers.compression.context import Context
from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.quantization import journal
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight, GroupScales
from workers.compression.quantization.recording import recorded
from workers.compression.quantization.resuming import resumed, resumed_in_turn
from workers.compression.quantization.uniform import Grid, quantize
from workers.compression.specs.messages import Checkpoint, CheckpointWritten, Event, Log
from workers.compression.specs.steps.quantize_weights import WeightOnlyQuantize

SPEC = WeightOnlyQuantize()
SHAPES = {
    "a b/c": (5, 40),
    "affine": (7, 33),
    "books": (6, 10),
    "scaled": (6, 12),
    "kept": (3, 3),
    "bf16": (4, 9),
    "float8": (8, 5),
}
WEIGHTS = [Weight(name, f"layer of {name}", shape, "float32", "linear", (0, 1)) for name, shape in SHAPES.items()]


@pytest.fixture(autouse=True)
def _a_checkpoint_after_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "REST_FACTOR", 0.0)


class CutOffError(Exception):
    """Stands for the death of the process."""


def codebooks(random: np.random.Generator, values: np.ndarray, per_row: Blocks, *, scaled: bool) -> CodebookWeight:
    codes = random.integers(0, 3, values.shape).astype(np.uint8)
    books = np.sort(random.normal(size=(6, 1, 3)).astype(np.float32))
    if not scaled:
        return CodebookWeight(codes, books, 2, per_row)
    own = random.integers(0, 5, (6, 3)).astype(np.uint8)
    scales = GroupScales(own, random.normal(size=5).astype(np.float32), 4)
    return CodebookWeight(codes, books[:1], 2, Blocks(per_row.shape, values.shape), scales)


class Maker:
    """Makes a form of another kind for each weight; dies before the weight named ``until``."""

    def __init__(self, context: Context, until: str | None = None) -> None:
        self.context, self.until = context, until
        self.made: list[str] = []

    def __call__(self, weight: Weight) -> WeightForm | None:
        if weight.name == self.until:
            raise CutOffError
        self.made.append(weight.name)
        random = np.random.default_rng(len(weight.name))
        values = random.normal(size=weight.matrix_shape).astype(np.float32)
        per_row = Blocks(weight.matrix_shape, (1, weight.matrix_shape[1]))
        match weight.name:
            case "a b/c":
                return quantize(values, Grid.of("minmax", 3), Blocks.of_matrix(weight.matrix_shape, "group"), "minmax")
            case "affine":
                return quantize(values, Grid(signed=True, bits=5), per_row, "affine")
            case "books" | "scaled":
                return codebooks(random, values, per_row, scaled=weight.name == "scaled")
            case "kept":
                self.context.warn("kept stays float32")
                return None
            case "bf16":
                return FloatForm((values.view(np.uint32) & 0xFFFF0000).view(np.float32), "bfloat16")
            case _:
                return FloatForm(np.round(values), "float8_e5m2", np.full((8, 1), 0.25, np.float32))


def a_context(folder: Path, events: list[Event], checkpoints: Sequence[Checkpoint] = ()) -> Context:
    return Context(
        scratch=folder,
        emit=events.append,
        checkpoint_seconds=1e-9,
        step="recipe/0",
        checkpoints={found.step: found.model_copy(update={"path": str(folder / found.path)}) for found in checkpoints},
    )


def written(events: list[Event]) -> list[Checkpoint]:
    return [event.checkpoint for event in events if isinstance(event, CheckpointWritten)]


def cut_off(folder: Path, until: str, spec: WeightOnlyQuantize = SPEC) -> list[Checkpoint]:
    """The checkpoints of an attempt that died before the weight ``until``."""
    events: list[Event] = []
    context = a_context(folder, events)
    with pytest.raises(CutOffError):
        list(resumed(WEIGHTS, Maker(context, until), spec, context))
    return written(events)


def same(first: list[tuple[Weight, WeightForm]], second: list[tuple[Weight, WeightForm]]) -> bool:
    def flat(made: list[tuple[Weight, WeightForm]]) -> Iterator[object]:
        for weight, form in made:
            description, arrays = recorded(form)
            yield weight, description, [(part, values.dtype, values.tolist()) for part, values in arrays.items()]
            yield form.restored().tolist()

    return list(flat(first)) == list(flat(second))


@pytest.mark.parametrize("until", [*SHAPES][1:])
def test_an_attempt_goes_on_at_the_weight_where_the_last_one_died(until: str, tmp_path: Path) -> None:
    undisturbed = a_context(tmp_path, [])
    whole = list(resumed(WEIGHTS, Maker(undisturbed), SPEC, undisturbed))

    last = cut_off(tmp_path, until)[-1]
    events: list[Event] = []
    context = a_context(tmp_path, events, [last])
    maker = Maker(context)
    made = list(resumed(WEIGHTS, maker, SPEC, context))

    assert last.update == [*SHAPES].index(until)
    assert maker.made == [*SHAPES][last.update :]
    assert same(made, whole)
    assert context.warnings == undisturbed.warnings == ["kept stays float32"]
    assert any(isinstance(event, Log) and f"resumed at layer of {until}" in event.message for event in events)


def test_checkpoints_grow_and_the_last_one_holds_everything(tmp_path: Path) -> None:
    events: list[Event] = []
    context = a_context(tmp_path, events)
    whole = list(resumed(WEIGHTS, Maker(context), SPEC, context))
    *earlier, last = written(events)
    assert last.finished
    assert not any(checkpoint.finished for checkpoint in earlier)
    assert [checkpoint.update for checkpoint in earlier] == sorted({checkpoint.update for checkpoint in earlier})

    again = a_context(tmp_path, [], [last])
    maker = Maker(again)
    assert same(list(resumed(WEIGHTS, maker, SPEC, again)), whole)
    assert maker.made == []


def test_a_checkpoint_of_other_parameters_or_another_model_is_not_taken(tmp_path: Path) -> None:
    for change in ("spec", "model"):
        last = cut_off(tmp_path, "bf16", WeightOnlyQuantize(bits=2) if change == "spec" else SPEC)[-1]
        context = a_context(tmp_path, [], [last])
        context.identity = "another" if change == "model" else ""
        maker = Maker(context)
        list(resumed(WEIGHTS, maker, SPEC, context))
        assert maker.made == [*SHAPES]
        assert "of another quantization. The step starts over." in context.warnings[0]


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path: Path) -> None:
    last = cut_off(tmp_path, "bf16")[-1]
    path = tmp_path / last.path
    path.write_bytes(path.read_bytes()[:-3])
    context = a_context(tmp_path, [], [last])
    maker = Maker(context)
    list(resumed(WEIGHTS, maker, SPEC, context))
    assert maker.made == [*SHAPES]
    assert "starts over" in context.warnings[0]


def test_forms_that_are_made_in_one_pass_resume_too(tmp_path: Path) -> None:
    last = cut_off(tmp_path, "books")[-1]
    context = a_context(tmp_path, [], [last])
    asked: list[str] = []

    def make(left: Sequence[Weight]) -> Iterator[tuple[Weight, WeightForm | None]]:
        asked.extend(weight.name for weight in left)
        maker = Maker(context)
        return ((weight, maker(weight)) for weight in left)

    undisturbed = a_context(tmp_path, [])
    whole = list(resumed(WEIGHTS, Maker(undisturbed), SPEC, undisturbed))
    assert same(list(resumed_in_turn(WEIGHTS, make, SPEC, context)), whole)
    assert asked == ["books", "scaled", "kept", "bf16", "float8"]


def test_no_checkpoint_is_written_for_what_takes_no_time(tmp_path: Path) -> None:
    events: list[Event] = []
    context = a_context(tmp_path, events)
    context.checkpoint_seconds = 1000.0
    list(resumed(WEIGHTS, Maker(context), SPEC, context))
    assert written(events) == []
