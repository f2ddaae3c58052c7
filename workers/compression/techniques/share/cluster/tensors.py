"""One codebook for the weights of bare tensors."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.steps.share import ClusterShare
from workers.compression.techniques.share.cluster.clustering import cluster_together


@implements(ClusterShare, formats=TENSOR_FORMATS)
def cluster_tensors(model: Model, spec: ClusterShare, context: Context) -> Model:
    """Stores weights as codes into one codebook."""
    return cluster_together(model, spec, context)
