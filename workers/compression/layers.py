"""Layer by layer: what changed between two versions of a model, one layer's weights in memory at a time, or less."""

from collections.abc import Iterator
from dataclasses import dataclass

from workers.compression import scores
from workers.compression.families.model import Model, StoredLayer
from workers.compression.specs.metrics import Fidelity, Layer
from workers.compression.weight_errors import WeightErrors, WeightFidelity, count_nonzero


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
        nonzero += count_nonzero(layer)
    return WeightCount(total, nonzero)


def compare_layers(before: Model, after: Model, *, rebuilt: bool = False) -> tuple[Layer, ...]:
    """Rows of ``GET /v1/jobs/{id}/layers`` in graph order, each with its namesake on the other side if there is one.

    Args:
        before: The original.
        after: The artifact.
        rebuilt: Whether ``after`` may have layers of its own, such as a new head: the rows then are its layers. Else
            they are those of ``before``: a technique may have split a layer into several nodes.
    """
    if not rebuilt:
        return tuple(_row(old, old, new) for new, old in _pairs(after, before))
    # Of another model altogether no layer would ever match, and all would have to be kept.
    names = {layer.name for layer in after.stored_layers()}
    return tuple(_row(new, old, new) for old, new in _pairs(before, after, names))


def tensor_fidelity(before: Model, after: Model) -> Fidelity | None:
    """Fidelity of bare weights, a layer counting as a row: the worst cosine, the SQNR over all.

    Layers without a namesake of the same shape are left out; None if there is no other.
    """
    found = [
        errors
        for old, new in _pairs(before, after)
        if old is not None and (errors := WeightFidelity.between(old, new)) is not None
    ]
    if not found:
        return None
    signal, noise = (sum(getattr(errors, name) for errors in found) for name in ("signal", "noise"))
    return Fidelity(
        cosine=min(errors.cosine for errors in found),
        sqnr_db=scores.sqnr_db(signal, noise),
        max_abs_error=max(errors.largest for errors in found),
    )


def _pairs(
    first: Model, second: Model, names: set[str] | None = None
) -> Iterator[tuple[StoredLayer | None, StoredLayer]]:
    """The layers of ``second``, each after its namesake in ``first``, of which only ``names`` are looked at.

    Both sides usually come in the same order, so hardly any layer has to be kept.
    """
    waiting: dict[str, StoredLayer] = {}
    following = first.stored_layers()
    for layer in second.stored_layers():
        while layer.name not in waiting:
            found = next(following, None)
            if found is None:
                break
            if names is None or found.name in names:
                waiting[found.name] = found
        yield waiting.pop(layer.name, None), layer


def _row(named: StoredLayer, old: StoredLayer | None, new: StoredLayer | None) -> Layer:
    kept = new or named
    errors = WeightErrors.between(old, new) if old is not None and new is not None else None
    nonzero = errors.nonzero if kept.nonzero is None and errors is not None else count_nonzero(kept)
    return Layer(
        name=named.name,
        op=named.op,
        parameters=named.parameters,
        bytes_before=old.bytes if old is not None else 0,
        bytes_after=new.bytes if new is not None else 0,
        bits=kept.bits,
        sparsity=1.0 - nonzero / kept.parameters if kept.parameters else 0.0,
        sqnr_db=errors.sqnr_db if errors is not None else None,
    )
