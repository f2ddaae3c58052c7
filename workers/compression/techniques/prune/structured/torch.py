"""Structured pruning of exported programs and of Hugging Face models."""

from workers.compression.context import Context
from workers.compression.families.model import Feeds, Model
from workers.compression.families.structured import Shrinkable
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.structure.reading import read_structure
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.families.torch.transformer_structure import read_neurons
from workers.compression.families.torch.weights import as_torch
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.structure.units import Removed
from workers.compression.techniques.prune.structured.pruning import prune_structured


@implements(StructuredPrune, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def prune_network(model: Model, spec: StructuredPrune, context: Context) -> Model:
    """Takes channels, neurons and heads out of a program, neurons out of a transformer, in place."""
    network = as_torch(model)

    def read(feeds: Feeds) -> Shrinkable:
        if isinstance(network, Pt2Model):
            return _of_program(network, feeds)
        if isinstance(network, TransformerModel):
            return _of_transformer(network, feeds)
        raise TypeError(f"{type(network).__name__} is neither a program nor a transformer")

    prune_structured(network, read, spec, context)
    return network


def _of_program(model: Pt2Model, feeds: Feeds) -> Shrinkable:
    found = read_structure(model.program, model.flat(feeds))

    def shrink(removed: Removed) -> None:
        found.shrink(removed)
        model.changed()

    return Shrinkable(found.structure, found.structure.groups(), shrink)


def _of_transformer(model: TransformerModel, feeds: Feeds) -> Shrinkable:
    found = read_neurons(model, feeds)
    return Shrinkable(found.structure, found.groups, lambda removed: found.shrink(model, removed), alike=True)
