"""Low-rank factors in exported programs."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.pt2_factored import factor, factorable
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.lowrank import SvdLowrank
from workers.compression.techniques.lowrank.svd.factoring import choose_factors


@implements(SvdLowrank, formats=(ModelFormat.PT2,))
def factor_program(model: Model, spec: SvdLowrank, context: Context) -> Model:
    """Replaces layers by two thinner ones, in place; those that the budget leaves whole stay as they are."""
    if not isinstance(model, Pt2Model):
        raise TypeError(f"{type(model).__name__} is no exported program")
    names = factorable(model.program)
    candidates = [weight for weight in model.weights() if weight.name in names]
    factor(model.program, choose_factors(model, candidates, spec, context))
    model.changed()
    return model
