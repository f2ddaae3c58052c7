"""Layer by layer: what changed between two versions of a model, one layer's weights in memory at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workers.compression import scores
from workers.compression.families.model import Model, StoredLayer
from workers.compression.specs.metrics import Fidelity, Layer


@dataclass(frozen=True)
class WeightCount:
    """Parameters of a whole model."""

    total: int
    nonzero: int


def count_weights(model: Model) -> WeightCount:
    """Parameters and how many of them are not zero."""
    total = nonzero = 0
    for layer in model.stored_layers():
        total += layer.parameters
        nonzero += layer.nonzero
    return WeightCount(total, nonzero)


def compare_layers(before: Model, after: Model) -> tuple[Layer, ...]:
    """Rows of ``GET /v1/jobs/{id}/layers`` in graph order."""
    return tuple(_row(old, new) for old, new in _pairs(before, after))


def tensor_fidelity(before: Model, after: Model) -> Fidelity:
    """Fidelity of bare weights, a layer counting as a row: the worst cosine, the SQNR over all."""
    signal = noise = largest = 0.0
    cosines: list[float] = []
    for old, new in _pairs(before, after):
        if old.weights is None or new is None or new.weights is None:
            continue
        left = old.weights.reshape(-1).astype(np.float64)
        right = new.weights.reshape(-1).astype(np.float64)
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        cosines.append(float(left @ right) / norms if norms > 0 else float(np.array_equal(left, right)))
        signal += float(left @ left)
        noise += float((right - left) @ (right - left))
        largest = max(largest, float(np.max(np.abs(right - left), initial=0.0)))
    return Fidelity(cosine=min(cosines, default=1.0), sqnr_db=scores.sqnr_db(signal, noise), max_abs_error=largest)


def _pairs(before: Model, after: Model) -> Iterator[tuple[StoredLayer, StoredLayer | None]]:
    """Matches layers by name; both sides usually come in the same order, so hardly any has to be kept."""
    waiting: dict[str, StoredLayer] = {}
    following = after.stored_layers()
    for old in before.stored_layers():
        while old.name not in waiting:
            new = next(following, None)
            if new is None:
                break
            waiting[new.name] = new
        yield old, waiting.pop(old.name, None)


def _row(old: StoredLayer, new: StoredLayer | None) -> Layer:
    kept = new or old
    return Layer(
        name=old.name,
        op=old.op,
        parameters=old.parameters,
        bytes_before=old.bytes,
        bytes_after=new.bytes if new is not None else 0,
        bits=kept.bits,
        sparsity=1.0 - kept.nonzero / kept.parameters if kept.parameters else 0.0,
        sqnr_db=_sqnr(old, new),
    )


def _sqnr(old: StoredLayer, new: StoredLayer | None) -> float | None:
    if new is None or old.weights is None or new.weights is None or old.weights.shape != new.weights.shape:
        return None
    error = new.weights.astype(np.float64) - old.weights
    signal = float(np.sum(np.square(old.weights, dtype=np.float64)))
    return scores.sqnr_db(signal, float(np.sum(np.square(error))))
