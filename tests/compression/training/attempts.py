"""Recipes carried out by the engine on small files, with all that came out of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests import trained
from workers.compression.context import Context
from workers.compression.data import Dataset, open_dataset
from workers.compression.engine import perform
from workers.compression.families.trainable import TrainableModel, as_trainable
from workers.compression.registry import family
from workers.compression.specs.formats import DatasetFormat, ModelFormat
from workers.compression.specs.messages import (
    Checkpoint,
    CheckpointWritten,
    Compress,
    Compressed,
    Data,
    DatasetFile,
    Event,
    Log,
    ModelFile,
)
from workers.compression.specs.step import Step

BATCH = ({0: torch.export.Dim("batch", min=1, max=4096)},)


@dataclass(frozen=True)
class Attempt:
    """One run of a recipe.

    Args:
        folder: Its working directory.
        made: What it came to.
        events: What it said on the way.
    """

    folder: Path
    made: Compressed
    events: list[Event] = field(default_factory=list)

    @property
    def artifact(self) -> Path:
        return self.folder / self.made.path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.artifact.read_bytes()).hexdigest()

    @property
    def checkpoints(self) -> list[Checkpoint]:
        found = [event.checkpoint for event in self.events if isinstance(event, CheckpointWritten)]
        return [one.model_copy(update={"path": str(self.folder / one.path)}) for one in found]

    @property
    def logs(self) -> str:
        return "\n".join(event.message for event in self.events if isinstance(event, Log))

    def open(self) -> TrainableModel:
        return opened(ModelFile(path=str(self.artifact), format=self.made.format), self.folder)

    def curve(self, name: str, step: int = 0) -> dict[int, float]:
        return next(dict(curve.points) for curve in self.made.steps[step].curves if curve.name == name)


def attempt(folder: Path, model: ModelFile, recipe: Sequence[Step], data: Data, **request: Any) -> Attempt:
    """Runs a recipe as a child of a worker would."""
    folder.mkdir(parents=True)
    events: list[Event] = []
    context = Context(scratch=folder, emit=events.append)
    made = perform(Compress(model=model, recipe=tuple(recipe), data=data, **request), folder, context)
    assert isinstance(made, Compressed)
    return Attempt(folder, made, events)


def opened(file: ModelFile, scratch: Path) -> TrainableModel:
    return as_trainable(family(file.format).open_model(Path(file.path), Context(scratch=scratch)))


def rows(file: DatasetFile) -> Dataset:
    return open_dataset(file)


def write_network(network: nn.Module, example: torch.Tensor, path: Path) -> ModelFile:
    """A network as a ``torch.export`` archive with a symbolic batch axis."""
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=BATCH), path)
    return ModelFile(path=str(path), format=ModelFormat.PT2)


def untrained(kind: str, path: Path) -> ModelFile:
    """The ``mlp`` or ``cnn`` with the weights it is born with."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = trained.mlp() if kind == "mlp" else trained.cnn()
    return write_network(network, trained.example_input(kind), path)


def digits(kind: str, path: Path, keep: Callable[[Any], Any] | None = None, *, labels: bool = True) -> DatasetFile:
    """Training rows of the digits; ``keep`` chooses rows by their labels."""
    images, _, targets, _ = trained.digits_split()
    chosen = np.ones(len(targets), bool) if keep is None else keep(targets)
    inputs = images[chosen] if kind == "mlp" else images[chosen].reshape(-1, 1, 8, 8)
    arrays = {"input": inputs, **({"target": targets[chosen]} if labels else {})}
    np.savez(path, **arrays)
    return DatasetFile(path=str(path), format=DatasetFormat.NPZ)


def state(model: TrainableModel) -> dict[str, torch.Tensor]:
    """Parameters and float buffers under the model's own names."""
    network = model.trainable()
    found = {**dict(network.module.named_parameters()), **dict(network.module.named_buffers())}
    return {network.names[name]: values.detach().clone() for name, values in found.items() if name in network.names}
