"""A training's state as one safetensors file: weights, best weights, optimizer, and where it stood."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from workers.compression.context import Context
from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.messages import OUTPUT_FOLDER
from workers.compression.specs.metrics import Curve
from workers.compression.specs.step import Contract
from workers.compression.training.validation import Verdict

FOLDER = "checkpoints"
_STANDING = "standing"
Tensors = Mapping[str, torch.Tensor]


class Standing(Contract):
    """Where a training stands.

    Args:
        update: Updates done.
        threads: Threads it computed with: another number adds floats in another order.
        best_update: After which update the best weights were found.
        best: What the validation rows said of them; None before the first validation.
        without_gain: Validations in a row that did not improve.
        finished: Whether nothing is left to do but to take the best weights.
        curves: So far.
    """

    update: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    best_update: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    best: Verdict | None = None
    without_gain: int = 0
    finished: bool = False
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Saved:
    """A checkpoint in memory.

    Args:
        standing: Where the training stood.
        weights: As ``Network.state`` gave them.
        best: Those of the best validation.
        optimizer: As ``optimizers.state_of`` gave it.
    """

    standing: Standing
    weights: Tensors = field(default_factory=dict)
    best: Tensors = field(default_factory=dict)
    optimizer: Tensors = field(default_factory=dict)


def write(saved: Saved, context: Context) -> None:
    """Writes a checkpoint of the context's step and hands it over; a file that was handed over never changes."""
    name = f"{context.step.replace('/', '-')}-{saved.standing.update}{'-end' if saved.standing.finished else ''}"
    folder = context.scratch / OUTPUT_FOLDER / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    unfinished, path = folder / f".{name}", folder / f"{name}.safetensors"
    parts = {"weights": saved.weights, "best": saved.best, "optimizer": saved.optimizer}
    tensors = {
        f"{part}:{key}": values.detach().cpu().contiguous()
        for part, found in parts.items()
        for key, values in found.items()
    }
    # Tied values were one tensor in memory; the format wants each to be its own.
    save_file(_unshared(tensors), unfinished, {_STANDING: saved.standing.model_dump_json()})
    unfinished.rename(path)
    context.checkpoint(f"{OUTPUT_FOLDER}/{FOLDER}/{path.name}", saved.standing.update, finished=saved.standing.finished)


def read(path: Path) -> Saved:
    """Reads a checkpoint; it comes from an earlier child, so everything in it is checked by whoever uses it.

    Raises:
        InvalidResult: It is no checkpoint.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "best": {}, "optimizer": {}}
    try:
        with safe_open(path, "pt") as file:
            standing = Standing.model_validate_json((file.metadata() or {})[_STANDING])
            for key in file.keys():  # noqa: SIM118 - no dictionary
                part, _, name = key.partition(":")
                parts[part][name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValidationError, LookupError) as error:
        raise InvalidResult("The checkpoint cannot be read.", reason="checkpoint_invalid") from error
    return Saved(standing, **parts)


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    seen: set[int] = set()
    found = {}
    for name, values in tensors.items():
        found[name] = values.clone() if values.data_ptr() in seen else values
        seen.add(values.data_ptr())
    return found
