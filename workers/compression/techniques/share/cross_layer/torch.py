"""Cross-layer sharing of exported programs: names of several blocks' matrices show one memory."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_sharing import share_tensors, tensors_to_share
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import CrossLayerShare
from workers.compression.techniques.share.cross_layer.sharing import Ties, share_across_layers


@implements(CrossLayerShare, formats=(ModelFormat.PT2,))
def share_program_across_layers(model: Model, spec: CrossLayerShare, context: Context) -> Model:
    """Ties parameters of alike blocks and trains the model, in place."""
    if not isinstance(model, Pt2Model):
        raise TypeError(f"{type(model).__name__} is not an exported program")

    def tie(ties: Ties) -> None:
        share_tensors(model.program, ties, ())
        model.changed()

    share_across_layers(model, tensors_to_share(model.program).__contains__, tie, spec, context)
    return model
