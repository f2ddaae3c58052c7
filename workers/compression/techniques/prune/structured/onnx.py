"""Structured pruning of ONNX models."""

from dataclasses import dataclass

from workers.compression.context import Context
from workers.compression.families.model import Feeds, Model
from workers.compression.families.onnx.model import OnnxModel, as_onnx
from workers.compression.families.onnx.structure.reading import OnnxStructure, give_vectors_owners, read_structure
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.prune_structured import StructuredPrune
from workers.compression.structure.units import Removed, Structure
from workers.compression.techniques.prune.structured.pruning import prune_structured


@dataclass(frozen=True)
class _Shrinkable:
    model: OnnxModel
    found: OnnxStructure

    @property
    def structure(self) -> Structure:
        return self.found.structure

    def shrink(self, removed: Removed) -> None:
        self.found.shrink(self.model.proto, removed)
        self.model.changed()


@implements(StructuredPrune, formats=(ModelFormat.ONNX,))
def prune_graph(model: Model, spec: StructuredPrune, context: Context) -> Model:
    """Takes channels, neurons and heads out of the graph, in place."""
    graph = as_onnx(model)

    def read(feeds: Feeds) -> _Shrinkable:
        give_vectors_owners(graph.proto)
        graph.changed()
        return _Shrinkable(graph, read_structure(graph.proto, feeds))

    prune_structured(graph, read, spec, context)
    return graph
