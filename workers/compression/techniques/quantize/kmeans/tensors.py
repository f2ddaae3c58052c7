"""Codebooks for bare tensors, which can be neither run nor trained."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.steps.quantize_weights import KmeansQuantize
from workers.compression.techniques.quantize.kmeans.clustering import quantize_to_codebooks


@implements(KmeansQuantize, formats=TENSOR_FORMATS)
def kmeans_tensors(model: Model, spec: KmeansQuantize, context: Context) -> Model:
    """Stores tensors as codes into codebooks."""
    return quantize_to_codebooks(model, spec, context)
