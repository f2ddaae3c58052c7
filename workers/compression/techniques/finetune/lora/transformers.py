"""Low-rank updates of transformers modules through peft, in whose layout an adapter that is kept apart is written."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from workers.compression.context import Context
from workers.compression.families.trainable import Trainable
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.messages import OUTPUT_FOLDER, ExtraFile
from workers.compression.specs.steps.finetune import LoraFinetune
from workers.compression.techniques.finetune.lora import selecting
from workers.compression.training.network import Network
from workers.compression.training.schedule import seed_of

NAME = "adapter.zip"
_LOAD = """\
import zipfile

from peft import PeftModel
from transformers import {architecture}

zipfile.ZipFile("{name}").extractall("adapter")
base = {architecture}.from_pretrained("original"{options})
model = PeftModel.from_pretrained(base, "adapter").eval()"""


def finetune(setting: selecting.Setting, spec: LoraFinetune, context: Context) -> None:
    """Wraps the chosen layers, trains, merges and unwraps them."""
    module: Any = setting.trainable.module
    with torch.random.fork_rng(), warnings.catch_warnings():
        # peft asks transformers by a name that has a successor; its user can do nothing about it.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        torch.manual_seed(seed_of(context.seed, 0))
        wrapped: Any = get_peft_model(module.network, _config(setting, spec))
    # peft freezes all that is not its own; what it copied of the last layer learns.
    selecting.train(setting, Network(setting.trainable), spec, context)
    if not spec.merge:
        context.extras.append(_keep_apart(wrapped, setting, context))
    module.network = wrapped.merge_and_unload()
    setting.model.adopt(setting.trainable)


def _config(setting: selecting.Setting, spec: LoraFinetune) -> LoraConfig:
    trainable = setting.trainable
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=[_owner(trainable, name) for name in setting.weights],
        modules_to_save=sorted({_owner(trainable, name) for name in trainable.layers[-1]}),
    )


def _owner(trainable: Trainable, name: str) -> str:
    """The module that has the parameter, by its name in the model."""
    owner = trainable.names[name].rpartition(".")[0]
    if not owner:
        raise UnsupportedTechnique(f"{trainable.names[name]} belongs to no layer that an update could be added to.")
    return owner


def _keep_apart(wrapped: Any, setting: selecting.Setting, context: Context) -> ExtraFile:
    architecture = type(setting.trainable.module.network).__name__
    with tempfile.TemporaryDirectory(dir=context.scratch) as folder:
        wrapped.save_pretrained(folder)
        (Path(folder) / "README.md").unlink(missing_ok=True)
        stored_zip(Path(folder), context.scratch / OUTPUT_FOLDER / NAME)
    return ExtraFile(
        path=f"{OUTPUT_FOLDER}/{NAME}",
        name=NAME,
        format="peft",
        load=_LOAD.format(
            architecture=architecture, name=NAME, options=_head_options(wrapped.config) if setting.fresh_head else ""
        ),
    )


def _head_options(config: Any) -> str:
    """What the original's own configuration does not say of a new last layer, in whose place it may have another."""
    options = {"num_labels": config.num_labels, "pad_token_id": config.pad_token_id, "ignore_mismatched_sizes": True}
    return "".join(f", {name}={value!r}" for name, value in options.items())
