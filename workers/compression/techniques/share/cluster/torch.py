"""One codebook for the weights of exported programs."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_sharing import share_codebooks
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import ClusterShare
from workers.compression.techniques.share.cluster.clustering import cluster_together
from workers.compression.techniques.share.cluster.learning import cluster_and_train


@implements(ClusterShare, formats=(ModelFormat.PT2,))
def cluster_torch(model: Model, spec: ClusterShare, context: Context) -> Model:
    """Stores weights as codes into one codebook, trained further if wanted."""
    if spec.recovery is not None:
        model = cluster_and_train(model, spec, spec.recovery, context)
    else:
        model = cluster_together(model, spec, context)
    if isinstance(model, Pt2Model):
        share_codebooks(model.program)
        model.changed()
    return model
