"""Training all weights on labelled data."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.registry import implements
from workers.compression.specs.steps.finetune import FullFinetune
from workers.compression.training import lessons
from workers.compression.training.optimizers import layer_shares


@implements(FullFinetune)
def finetune_all(model: Model, spec: FullFinetune, context: Context) -> Model:
    """Trains every weight that is not frozen; the last layer is replaced first where the labels are new.

    Raises:
        InvalidSpec: ``freeze`` leaves nothing to learn.
    """
    rows = lessons.training_rows(spec, context)
    learner = lessons.with_fitting_head(as_trainable(model), spec, rows, context)
    trainable = learner.trainable()
    lessons.freeze(trainable, lessons.matching(trainable, spec.freeze))
    network = lessons.structured(trainable, context)
    objective = lessons.labelled_objective(spec, trainable, rows.train)
    shares = layer_shares(trainable.layers, spec.layer_decay)
    rate = lessons.customary_rate(trainable)
    course = lessons.Course(objective, objective, rate, shares=shares, unfreeze=spec.unfreeze_epochs)
    lessons.run(learner, trainable, network, rows, course, spec, context)
    learner.adopt(trainable)
    return learner
