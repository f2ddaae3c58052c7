"""What a child may report: enough to follow a long training, never more than the database can take."""

import itertools
import json
from typing import Any

from workers.compression.specs.messages import Checkpoint
from workers.story import MAX_STEPS, MAX_WAITING, Story
from workers.streams import LINES_PER_SECOND, MAX_LINES, LineReader
from workers.thinning import MAX_NAMES


def hear(story: Story, **event: Any) -> None:
    story.hear(json.dumps(event).encode())


def metric(story: Story, name: str, step: int) -> None:
    hear(story, type="metric", name=name, value=1.0 / (step + 1), step=step)


def metrics(story: Story, *, last: bool = False) -> list[tuple[str, int]]:
    chapter = story.take(last=last)
    events = [] if chapter is None else chapter.events
    return [(data["name"], data["step"]) for kind, data in events if kind == "job.metric"]


def test_a_short_training_is_told_whole() -> None:
    story = Story()
    told = []
    for step in range(100):
        metric(story, "train/loss", step)
        if step % 10 == 0:
            told += metrics(story)
    told += metrics(story, last=True)
    assert told == [("train/loss", step) for step in range(100)]


def test_the_first_and_the_last_value_of_every_metric_are_told_whatever_comes_between() -> None:
    story = Story()
    for step in range(10_000):
        metric(story, "train/loss", step)
    metric(story, "validation/loss", 0)
    metric(story, "validation/loss", 1)
    at_once = metrics(story)
    assert at_once[0] == ("train/loss", 0)
    assert ("validation/loss", 0) in at_once
    assert len(at_once) <= MAX_WAITING + MAX_NAMES
    assert metrics(story, last=True) == [("train/loss", 9_999), ("validation/loss", 1)]
    assert metrics(story, last=True) == []


def test_a_long_training_is_told_in_steps_that_grow() -> None:
    story = Story()
    told = []
    for step in range(100_000):
        metric(story, "train/loss", step)
        if step % 50 == 0:
            told += metrics(story)
    told += metrics(story, last=True)
    assert 1_000 < len(told) < 2_500
    steps = [step for _, step in told]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 99_999)
    assert max(after - before for before, after in itertools.pairwise(steps)) < 2_000


def test_a_child_cannot_make_up_metrics_and_steps_without_end() -> None:
    story = Story()
    for number in range(1_000):
        metric(story, f"name {number}", 0)
        hear(
            story,
            type="step_completed",
            outcome={"step": "recipe/0", "technique": "prune", "method": "m", "seconds": 1.0, "changed": ""},
        )
    chapter = story.take(last=True)
    assert chapter is not None
    kinds = [kind for kind, _ in chapter.events]
    assert (kinds.count("job.metric"), kinds.count("job.step_completed")) == (MAX_NAMES, MAX_STEPS)


def test_checkpoints_go_to_whom_the_child_runs_for_and_into_no_event() -> None:
    story = Story()
    heard: list[Checkpoint] = []
    checkpoint = {"step": "recipe/0", "path": "out/c", "update": 3, "finished": True}
    hear(story, type="checkpoint", checkpoint=checkpoint)
    story.enter((0.0, 1.0), heard.append)
    hear(story, type="checkpoint", checkpoint=checkpoint)
    hear(story, type="checkpoint", checkpoint=checkpoint | {"update": -1})
    story.enter((0.0, 1.0))
    hear(story, type="checkpoint", checkpoint=checkpoint)
    assert heard == [Checkpoint(step="recipe/0", path="out/c", update=3, finished=True)]
    assert story.take(last=True) is None


def test_a_child_that_talked_too_much_is_heard_again_later() -> None:
    lines: list[bytes] = []
    now = [0.0]
    reader = LineReader(lines.append, lambda: now[0])
    reader.feed(b"x\n" * (2 * MAX_LINES))
    assert len(lines) == MAX_LINES
    now[0] += 2.0
    reader.feed(b"y\n" * 1_000)
    assert lines[MAX_LINES:] == [b"y"] * int(2 * LINES_PER_SECOND)
