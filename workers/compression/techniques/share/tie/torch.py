"""Tying of torch networks."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.tie.pt2 import tie_program
from workers.compression.techniques.share.tie.transformers import tie_output_to_embeddings


@implements(TieShare, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def tie_torch(model: Model, spec: TieShare, context: Context) -> Model:
    """As far as what the model is saved in can hold ties."""
    if isinstance(model, TransformerModel):
        return tie_output_to_embeddings(model, spec, context)
    if isinstance(model, Pt2Model):
        return tie_program(model, spec, context)
    raise TypeError(f"{type(model).__name__} is not a torch network")
