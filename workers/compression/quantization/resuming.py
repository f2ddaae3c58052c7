"""Goes on where an attempt that was cut off had stood, weight by weight.

Forms that were made are packed into a file of the child's own, whatever their number, and every
``context.checkpoint_seconds`` that file is copied into a checkpoint that is handed to the service. The next attempt
takes the weights of the checkpoint as they are and makes only the others.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from workers.compression.context import Context
from workers.compression.families.weights import Weight, WeightForm
from workers.compression.quantization.journal import Journal
from workers.compression.quantization.recording import recorded, restored
from workers.compression.specs.step import Step

Made = tuple[Weight, WeightForm]


def resumed(
    weights: Sequence[Weight],
    make: Callable[[Weight], WeightForm | None],
    spec: Step,
    context: Context,
    elements_per_second: float = 0.0,
) -> Iterator[Made]:
    """Makes the form of each weight, or takes it from the checkpoint of an attempt that was cut off.

    Args:
        weights: In the order in which their forms are made.
        make: Gives the form of a weight, None where it stays as it is (having told ``context.warn`` why). It may depend
            on nothing that happens before in the same attempt: a resumed step has to end with the same bytes.
        spec: Of the step; a checkpoint made with another one is not taken.
        elements_per_second: How many are made at least, where that is known: no checkpoint comes of what takes less
            time than passes between two of them, so nothing has to be noted for it.
    """

    def make_all(left: Sequence[Weight]) -> Iterator[tuple[Weight, WeightForm | None]]:
        return ((weight, make(weight)) for weight in left)

    total = _size(weights)
    if total < elements_per_second * context.checkpoint_seconds and context.step not in context.checkpoints:
        return _told(make_all(weights), weights, total, context)
    return resumed_in_turn(weights, make_all, spec, context)


def resumed_in_turn(
    weights: Sequence[Weight],
    make: Callable[[Sequence[Weight]], Iterable[tuple[Weight, WeightForm | None]]],
    spec: Step,
    context: Context,
) -> Iterator[Made]:
    """The same where forms are made of several weights in one pass, as from the inputs that layers see together.

    Args:
        make: Gets the weights that are left, yields each of them once, in an order that does not depend on which of
            them are asked for.
    """
    by_name = {weight.name: weight for weight in weights}
    with Journal(context, _fingerprint(weights, spec, context)) as journal:
        found = [by_name[name] for name in journal.names if name in by_name]
        for weight in found:
            form = restored(weight, *journal.read(weight.name))
            if form is not None:
                yield weight, form
        known = {weight.name for weight in found}
        left = [weight for weight in weights if weight.name not in known]
        if found:
            context.log(f"resumed at {left[0].layer if left else 'the end'}: {len(found)} of {len(weights)} were done")
        if left:
            yield from _told(_noted(make(left), journal), left, _size(weights), context)
        journal.write_when_due(finished=True)


def _noted(
    made: Iterable[tuple[Weight, WeightForm | None]], journal: Journal
) -> Iterator[tuple[Weight, WeightForm | None]]:
    for weight, form in made:
        journal.add(weight.name, *recorded(form))
        yield weight, form
        journal.write_when_due(finished=False)


def _told(
    made: Iterable[tuple[Weight, WeightForm | None]], left: Sequence[Weight], total: int, context: Context
) -> Iterator[Made]:
    """Reports progress; drops weights that stay as they are."""
    done = total - _size(left)
    for weight, form in made:
        done += weight.size
        context.progress(done / total, weight.layer)
        if form is not None:
            yield weight, form


def _size(weights: Sequence[Weight]) -> int:
    return sum(weight.size for weight in weights)


def _fingerprint(weights: Sequence[Weight], spec: Step, context: Context) -> str:
    """Of all that the forms depend on: the model, the recipe, the step and its weights."""
    shapes = [(weight.name, weight.shape, weight.dtype, weight.order, weight.leading) for weight in weights]
    facts = [context.identity, context.step, context.seed, spec.model_dump(mode="json"), shapes]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
