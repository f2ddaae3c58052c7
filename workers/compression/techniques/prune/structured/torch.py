"""Structured pruning of exported programs."""

from workers.compression.context import Context
from workers.compression.families.model import Feeds, Model
from workers.compression.families.structured import Shrinkable
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.structure.reading import read_structure
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.structure.units import Removed
from workers.compression.techniques.prune.structured.pruning import prune_structured


@implements(StructuredPrune, formats=(ModelFormat.PT2,))
def prune_program(model: Model, spec: StructuredPrune, context: Context) -> Model:
    """Takes channels, neurons and heads out of the program, in place."""
    if not isinstance(model, Pt2Model):
        raise TypeError(f"{type(model).__name__} is no exported program")

    def read(feeds: Feeds) -> Shrinkable:
        found = read_structure(model.program, model.flat(feeds))

        def shrink(removed: Removed) -> None:
            found.shrink(removed)
            model.changed()

        return Shrinkable(found.structure, shrink)

    prune_structured(model, read, spec, context)
    return model
