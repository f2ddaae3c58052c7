"""Low-rank updates of linear layers and convolutions, whatever module holds them."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from workers.compression.context import Context
from workers.compression.specs.messages import OUTPUT_FOLDER, ExtraFile
from workers.compression.specs.steps.finetune import LoraFinetune
from workers.compression.techniques.finetune.lora import selecting
from workers.compression.training.network import Network
from workers.compression.training.schedule import seed_of
from workers.compression.training.substitutes import LowRank

NAME = "adapter.safetensors"
_LOAD = """\
from safetensors.torch import load_file

state = model.state_dict()  # of the original, its last layer with the new outputs
for name, values in load_file("{name}").items():
    if name.endswith(".lora_up"):
        weight = name.removesuffix(".lora_up")
        update = values @ load_file("{name}")[f"{{weight}}.lora_down"]
        state[weight] += {scale!r} * update.reshape(state[weight].shape)
    elif not name.endswith(".lora_down"):
        state[name] = values
model.load_state_dict(state)"""


def finetune(setting: selecting.Setting, spec: LoraFinetune, context: Context) -> None:
    """Trains the updates as part of the weights they belong to, which need no other module."""
    if spec.dropout:
        context.warn("dropout is not applied: the updates are part of the weights of this format's layers.")
    trainable = setting.trainable
    generator = torch.Generator().manual_seed(seed_of(context.seed, 0))
    scale = spec.alpha / spec.rank
    updates = {
        name: LowRank(trainable.module.get_parameter(name), spec.rank, scale, generator) for name in setting.weights
    }
    selecting.train(setting, Network(trainable, updates), spec, context)
    if not spec.merge:
        context.extras.append(_keep_apart(setting, updates, scale, context.scratch))
    setting.model.adopt(trainable)


def _keep_apart(setting: selecting.Setting, updates: dict[str, LowRank], scale: float, scratch: Path) -> ExtraFile:
    """Writes the updates and the last layer under the model's own names."""
    trainable = setting.trainable
    tensors = {trainable.names[name]: trainable.module.get_parameter(name) for name in trainable.layers[-1]}
    for name, update in updates.items():
        tensors[f"{trainable.names[name]}.lora_down"] = update.down
        tensors[f"{trainable.names[name]}.lora_up"] = update.up
    path = scratch / OUTPUT_FOLDER / NAME
    save_file({name: values.detach().contiguous() for name, values in tensors.items()}, path, {"scale": repr(scale)})
    return ExtraFile(
        path=f"{OUTPUT_FOLDER}/{NAME}", name=NAME, format="safetensors", load=_LOAD.format(name=NAME, scale=scale)
    )
