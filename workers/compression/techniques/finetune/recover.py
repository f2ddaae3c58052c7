"""Recovery as a step of a recipe."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.registry import implements
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.training.recovery import recover


@implements(RecoverFinetune)
def finetune_recover(model: Model, spec: RecoverFinetune, context: Context) -> Model:
    """Regains quality; what earlier steps removed or shared stays so."""
    learner = as_trainable(model)
    recover(learner, spec, context)
    return learner
