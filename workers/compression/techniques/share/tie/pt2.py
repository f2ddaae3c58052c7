"""Tying of exported programs: names of repeated tensors show one memory, which is saved once."""

from workers.compression.context import Context
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_sharing import share_tensors, tensors_to_share
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.tie.finding import shared_among, summarize


def tie_program(model: Pt2Model, spec: TieShare, context: Context) -> Pt2Model:
    """Ties parameters, buffers and constants, in place."""
    tensors = tensors_to_share(model.program)
    shared, changed = shared_among(tensors, spec, context)
    saved = sum(tensors[name]().nbytes for name in shared)
    share_tensors(model.program, shared, changed)
    model.changed()
    summarize(len(shared), saved, spec, context)
    return model
