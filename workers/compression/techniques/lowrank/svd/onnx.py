"""Low-rank factors in ONNX graphs."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.onnx.factored_layers import factor, factorable
from workers.compression.families.onnx.model import as_onnx
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.lowrank import SvdLowrank
from workers.compression.techniques.lowrank.svd.factoring import choose_factors


@implements(SvdLowrank, formats=(ModelFormat.ONNX,))
def factor_graph(model: Model, spec: SvdLowrank, context: Context) -> Model:
    """Replaces layers by two thinner ones, in place; those that the budget leaves whole stay as they are."""
    graph = as_onnx(model)
    factor(graph.proto, choose_factors(graph, factorable(graph.proto), spec, context))
    graph.changed()
    return graph
