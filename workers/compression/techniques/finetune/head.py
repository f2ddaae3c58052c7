"""A linear probe."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.registry import implements
from workers.compression.specs.steps.finetune import HeadFinetune
from workers.compression.training import lessons

_RATE = 1e-3


@implements(HeadFinetune)
def finetune_head(model: Model, spec: HeadFinetune, context: Context) -> Model:
    """Trains the last layer alone; the body stays as it is to the last bit."""
    rows = lessons.training_rows(spec, context)
    learner = lessons.with_fitting_head(as_trainable(model), spec, rows, context)
    trainable = learner.trainable()
    lessons.freeze(trainable, [name for names in trainable.layers[:-1] for name in names])
    network = lessons.structured(trainable, context)
    objective = lessons.labelled_objective(spec, trainable, rows.train)
    lessons.run(learner, trainable, network, rows, lessons.Course(objective, objective, _RATE), spec, context)
    learner.adopt(trainable)
    return learner
