"""One codebook for the weights of ONNX models."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import ClusterShare
from workers.compression.techniques.share.cluster.clustering import cluster_together
from workers.compression.techniques.share.cluster.learning import cluster_and_train


@implements(ClusterShare, formats=(ModelFormat.ONNX,))
def cluster_onnx(model: Model, spec: ClusterShare, context: Context) -> Model:
    """Stores weights as codes into one codebook, trained further if wanted."""
    if spec.recovery is not None:
        return cluster_and_train(model, spec, spec.recovery, context)
    return cluster_together(model, spec, context)
