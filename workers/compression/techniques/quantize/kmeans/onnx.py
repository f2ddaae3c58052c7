"""Codebooks for ONNX models, trained further if wanted."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize_weights import KmeansQuantize
from workers.compression.techniques.quantize.kmeans.clustering import quantize_to_codebooks
from workers.compression.techniques.quantize.kmeans.learning import quantize_to_trained_codebooks


@implements(KmeansQuantize, formats=(ModelFormat.ONNX,))
def kmeans_onnx(model: Model, spec: KmeansQuantize, context: Context) -> Model:
    """Stores weights as codes into codebooks."""
    if spec.recovery is not None:
        return quantize_to_trained_codebooks(model, spec, spec.recovery, context)
    return quantize_to_codebooks(model, spec, context)
