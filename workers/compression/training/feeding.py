"""Rows of a dataset as tensors, in the order that a seed and an epoch give, with a teacher's answers beside them."""

import filecmp
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch

from workers.compression.data import Batch, Dataset
from workers.compression.datasets.prefetching import prefetched
from workers.compression.families.model import Model
from workers.compression.families.torch.running import tensors_of
from workers.compression.families.trainable import Trainable
from workers.compression.pairing import Binding
from workers.compression.specs.errors import DatasetMismatch
from workers.compression.specs.formats import Task
from workers.compression.training.objectives import Made, Rows


@dataclass(frozen=True)
class Teacher:
    """Who is followed.

    Args:
        model: Answers on arrays, whatever runs it.
        trainable: The same as a torch network, where its hidden states are wanted.
    """

    model: Model
    trainable: Trainable | None = None

    def answer(self, batch: Batch) -> Made:
        """Its outputs, and its hidden states where they are wanted, in evaluation mode without gradients."""
        if self.trainable is None or self.trainable.tapped is None:
            arrays = self.model.run(batch.feeds)
            return Made(tuple(torch.from_numpy(array.copy()) for array in arrays))
        with torch.no_grad():
            outputs, features = self.trainable.tapped(*tensors_of(batch.feeds, self.model.inputs).values())
        return Made(tuple(outputs), dict(features))


@dataclass(frozen=True)
class Feed:
    """Batches for a network, and for its teacher the same rows in its own form.

    Args:
        model: The one that learns; its inputs and tokenizer say how rows are fed.
        size: Rows per batch.
        fixed: The number of rows that the network takes at a time, where that is fixed.
        seed: Orders the rows, together with the epoch.
        teacher: Whose answers go along.
    """

    model: Model
    size: int
    fixed: int | None = None
    seed: int = 0
    teacher: Teacher | None = None

    def count(self, dataset: Dataset) -> int:
        """Batches in one epoch."""
        together = self.together(dataset)
        return max(dataset.rows // together, 1) if together else math.ceil(self._usable(dataset).rows / self.size)

    def together(self, dataset: Dataset) -> int | None:
        """The number of rows that the network or its teacher takes at a time, where that is fixed.

        Raises:
            DatasetMismatch: The two take different numbers.
        """
        if self.teacher is None:
            return self.fixed
        theirs = Binding(self.teacher.model.inputs, None).fixed_batch(dataset)
        if self.fixed and theirs and self.fixed != theirs:
            raise DatasetMismatch(
                f"The student takes {self.fixed} rows at a time, the original {theirs}.",
                reason="student_input",
                hint="Export one of them with a batch axis of any length.",
            )
        return self.fixed or theirs

    def fills_a_batch(self, dataset: Dataset) -> bool:
        """Whether there are enough rows for a network that takes a fixed number at a time."""
        return dataset.rows >= (self.together(dataset) or 1)

    def epoch(self, dataset: Dataset, epoch: int, device: torch.device, start: int = 0) -> Generator[Rows]:
        """The rows in the order of an epoch, from the batch numbered ``start`` on."""
        shuffled = self._usable(dataset).shuffled(self.seed, epoch)
        return self._rows(shuffled, device, start, bucketed=not self._teacher_reads_otherwise())

    def once(self, dataset: Dataset, device: torch.device) -> Iterator[Rows]:
        """All rows as they come, for judging."""
        return self._rows(dataset, device, 0, bucketed=False)

    def _usable(self, dataset: Dataset) -> Dataset:
        """A batch norm finds no variance in a batch of one row, so an epoch does not end with one."""
        alone = dataset.rows > self.size and dataset.rows % self.size == 1
        return dataset.limited(dataset.rows - 1) if alone and self.together(dataset) is None else dataset

    def _rows(self, dataset: Dataset, device: torch.device, start: int, *, bucketed: bool) -> Generator[Rows]:
        together = self.together(dataset)
        size = together or self.size
        if together is not None and dataset.rows >= together:
            # Where only one side takes a fixed number, the other one has to leave out the same rows.
            dataset = replace(dataset, order=dataset.order[: dataset.rows - dataset.rows % together])
        batches = dataset.batches(self.model.inputs, size, self.model.tokenizer_file(), start=start, bucketing=bucketed)
        if self._teacher_reads_otherwise() and self.teacher is not None:
            asked = self.teacher.model
            others = dataset.batches(asked.inputs, size, asked.tokenizer_file(), start=start)
            for batch, other in zip(prefetched(batches), others, strict=True):
                yield _with_answer(self._tensors(batch, dataset, device), self.teacher, other, device)
            return
        for batch in prefetched(batches):
            rows = self._tensors(batch, dataset, device)
            yield rows if self.teacher is None else _with_answer(rows, self.teacher, batch, device)

    def _teacher_reads_otherwise(self) -> bool:
        """Whether the teacher has other inputs or another tokenizer."""
        if self.teacher is None:
            return False
        mine, theirs = (Binding(side.inputs, side.tokenizer_file()) for side in (self.model, self.teacher.model))
        return not mine.agrees(theirs)

    def _tensors(self, batch: Batch, dataset: Dataset, device: torch.device) -> Rows:
        tensors = {name: values.to(device) for name, values in tensors_of(batch.feeds, self.model.inputs).items()}
        targets = None
        if batch.targets is not None and dataset.task is not Task.FIDELITY:
            kind = torch.int64 if dataset.task is Task.CLASSIFICATION else torch.float32
            targets = torch.as_tensor(batch.targets, dtype=kind, device=device)
            targets = targets if dataset.task is Task.CLASSIFICATION else targets.reshape(len(batch), -1)
        return Rows(tuple(tensors.values()), len(batch), targets, batch.pairs, _mask(batch, device))


def _with_answer(rows: Rows, teacher: Teacher, batch: Batch, device: torch.device) -> Rows:
    made = teacher.answer(batch)
    return replace(
        rows,
        teacher=tuple(output.to(device).float() for output in made.floats),
        teacher_features={name: values.to(device) for name, values in made.features.items()},
    )


def _mask(batch: Batch, device: torch.device) -> torch.Tensor | None:
    mask = batch.feeds.get("attention_mask")
    return None if mask is None else torch.tensor(mask, device=device)


def reads_other_tokens(model: Model, teacher: Model) -> bool:
    """Whether the two cut the same text differently, so that their tokens cannot be compared one by one."""
    mine, theirs = model.tokenizer_file(), teacher.tokenizer_file()
    return mine is not None and theirs is not None and not filecmp.cmp(mine, theirs, shallow=False)
