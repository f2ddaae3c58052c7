"""Structured pruning of ONNX models."""

from workers.compression.context import Context
from workers.compression.families.model import Feeds, Model
from workers.compression.families.onnx.model import as_onnx
from workers.compression.families.onnx.structure.reading import give_vectors_owners, read_structure
from workers.compression.families.structured import Shrinkable
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.structure.units import Removed
from workers.compression.techniques.prune.structured.pruning import prune_structured


@implements(StructuredPrune, formats=(ModelFormat.ONNX,))
def prune_graph(model: Model, spec: StructuredPrune, context: Context) -> Model:
    """Takes channels, neurons and heads out of the graph, in place."""
    graph = as_onnx(model)

    def read(feeds: Feeds) -> Shrinkable:
        give_vectors_owners(graph.proto)
        graph.changed()
        found = read_structure(graph.proto, feeds)

        def shrink(removed: Removed) -> None:
            found.shrink(graph.proto, removed)
            graph.changed()

        return Shrinkable(found.structure, found.structure.groups(), shrink)

    prune_structured(graph, read, spec, context)
    return graph
