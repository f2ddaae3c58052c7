"""Training recipes carried out by our engine as a job does it, and judged on rows that were used for nothing else."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from tests.benchmarks.training_inputs import Split
from workers.compression import data as datasets
from workers.compression.context import Context
from workers.compression.engine import perform
from workers.compression.families.model import Model
from workers.compression.registry import family
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import (
    Compress,
    Compressed,
    Data,
    DatasetFile,
    InspectModel,
    ModelFile,
    ModelInspection,
)
from workers.compression.specs.recipe import Recipe
from workers.compression.task_scores import Answers

STUDENT = "mdl_00000000000000000000000000"
JUDGED_ROWS = 32


@dataclass(frozen=True)
class Learned:
    """An artifact and what it reached; seconds are those of the recipe's steps, judging left out."""

    path: Path
    accuracy: float
    seconds: float
    made: Compressed


def learn(
    model: Path,
    recipe: Sequence[Mapping[str, Any]],
    split: Split,
    folder: Path,
    *,
    seed: int = 0,
    student: Path | None = None,
    threads: int = 1,
) -> Learned:
    """Trains on ``split.train`` and judges the stored artifact on ``split.test``.

    Args:
        model: As it would be uploaded.
        recipe: Steps as in a job's JSON; a distillation names ``STUDENT``.
        split: Dataset files.
        folder: A new folder for everything that is written.
        seed: Of the job.
        student: The file behind ``STUDENT``.
        threads: For training and for judging.
    """
    folder.mkdir(parents=True)
    original = _inspected(model, folder / "original")
    train, test = (_dataset(path, folder) for path in (split.train, split.test))
    request = Compress(
        model=original,
        recipe=TypeAdapter(Recipe).validate_python([dict(step) for step in recipe]),
        data=Data(train=train, evaluation=test),
        students={STUDENT: _inspected(student, folder / "student")} if student else {},
        seed=seed,
        threads=threads,
    )
    made = perform(request, folder, Context(scratch=folder))
    if not isinstance(made, Compressed):
        raise TypeError("a compression was asked for")
    path = folder / made.path
    taught = family(made.format).open_model(path, Context(scratch=_new(folder / "opened"), threads=threads))
    seconds = sum(step.seconds for step in made.steps)
    # An ONNX artifact is one file; the tokenizer is still the upload's.
    uploaded = family(original.format).open_model(Path(original.path), Context(scratch=_new(folder / "uploaded")))
    tokenizer = taught.tokenizer_file() or uploaded.tokenizer_file()
    return Learned(path, score(taught, test, tokenizer), seconds, made)


def score(model: Model, file: DatasetFile, tokenizer: Path | None) -> float:
    """Accuracy of an opened model on all rows of a dataset."""
    dataset = datasets.open_dataset(file)
    answers = Answers(dataset, required=True)
    for batch in dataset.batches(model.inputs, JUDGED_ROWS, tokenizer):
        answers.add(model.run(batch.feeds), batch)
    return answers.score(np.random.default_rng(0)).values["accuracy"]


def summary(values: Sequence[float]) -> str:
    """Mean and, of several values, standard deviation in percent."""
    mean = f"{100 * statistics.mean(values):6.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def verdict(held: bool) -> str:
    """A bar's outcome in a word."""
    return "met" if held else "MISSED"


def _inspected(path: Path, folder: Path) -> ModelFile:
    found = perform(InspectModel(path=str(path)), _new(folder), Context(scratch=folder))
    if not isinstance(found, ModelInspection):
        raise TypeError("an inspection was asked for")
    return ModelFile(path=str(folder / found.clean if found.clean else path), format=found.format)


def _dataset(path: Path, folder: Path) -> DatasetFile:
    found = datasets.inspect(path, path.name, DatasetFields(), folder)
    return DatasetFile(path=str(path), format=found.format)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
