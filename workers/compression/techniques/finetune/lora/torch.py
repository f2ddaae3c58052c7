"""Low-rank fine-tuning of torch models."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.registry import implements
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.finetune import LoraFinetune
from workers.compression.techniques.finetune.lora import plain, selecting


@implements(LoraFinetune, formats=(ModelFormat.PT2, ModelFormat.HUGGINGFACE))
def finetune_by_lora(model: Model, spec: LoraFinetune, context: Context) -> Model:
    """Trains low-rank updates and the last layer, and merges the updates into the weights.

    Raises:
        UnsupportedTechnique: As ``selecting.prepare``.
    """
    setting = selecting.prepare(model, spec, context)
    if model.format is ModelFormat.HUGGINGFACE:
        # Imported here because peft brings all of transformers along.
        from workers.compression.techniques.finetune.lora import transformers  # noqa: PLC0415

        transformers.finetune(setting, spec, context)
    else:
        plain.finetune(setting, spec, context)
    return setting.model
