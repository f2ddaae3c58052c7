"""Models in which tensors repeat, as they come about in practice."""

import json
import zipfile
from functools import cache
from pathlib import Path

import onnx
import safetensors.torch
import torch
from torch import nn
from transformers import PretrainedConfig
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from tests import trained


@cache
def one_layer_applied_twice(change: float = 0.0) -> nn.Sequential:
    """A perceptron that was trained applying one layer twice, with a copy of the weights for each of the two times.

    Args:
        change: How far the copy moved from the layer, relative to its norm.
    """
    torch.manual_seed(0)
    shared = nn.Linear(64, 64)
    network = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(64, 10))
    flat, _, labels, _ = trained.digits_split()
    images = flat.reshape(-1, 1, 8, 8)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.from_numpy(images)), torch.from_numpy(labels).long()).backward()
        optimizer.step()
    copied = nn.Linear(64, 64)
    copied.load_state_dict(shared.state_dict())
    with torch.no_grad():
        moved = torch.randn(copied.weight.shape, generator=torch.Generator().manual_seed(1))
        copied.weight += change * copied.weight.norm() / moved.norm() * moved
    return nn.Sequential(nn.Flatten(), shared, nn.ReLU(), copied, nn.ReLU(), network[5]).eval()


def rows() -> torch.Tensor:
    """Images that no network here was trained on."""
    return torch.from_numpy(trained.digits_split()[1].reshape(-1, 1, 8, 8))


def one_layer_trained_twice(path: Path, change: float = 0.0) -> Path:
    """``one_layer_applied_twice`` as ONNX."""
    untied = one_layer_applied_twice(change)
    options = {"input_names": ["input"], "dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
    program = torch.onnx.export(untied, (rows()[:2],), dynamo=True, **options)
    proto = program.model_proto
    names = {tensor.name: tensor for tensor in proto.graph.initializer}
    if not change and len({bytes(tensor.raw_data) for tensor in names.values()}) == len(names):
        raise AssertionError("the exporter has tied the copies already")
    onnx.save(proto, path)
    return path


def program_of_one_layer_twice(path: Path, change: float = 0.0) -> Path:
    """``one_layer_applied_twice`` as an exported program."""
    batch = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(one_layer_applied_twice(change), (rows()[:2],), dynamic_shapes=batch), path)
    return path


def language_model_with_a_copied_table(path: Path) -> Path:
    """A two-layer Llama whose output layer is a copy of its embeddings, as checkpoints that forgot the tie have it."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)
    state = dict(LlamaForCausalLM(config).state_dict())
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    return write_folder(path, config, "LlamaForCausalLM", state)


def write_folder(path: Path, config: PretrainedConfig, architecture: str, state: dict[str, torch.Tensor]) -> Path:
    """A Hugging Face folder as a ZIP."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({**config.to_dict(), "architectures": [architecture]}))
        archive.writestr("model.safetensors", safetensors.torch.save(state, metadata={"format": "pt"}))
    return path


def checkpoint_of_two_models(path: Path) -> Path:
    """The same two models as a state dict."""
    torch.save(safetensors.torch.load_file(tensors_of_two_models(path.with_suffix(".safetensors"))), path)
    return path


def tensors_of_two_models(path: Path) -> Path:
    """A trained perceptron and a sibling that differs in its last layer only, as fine-tuning of a head leaves it."""
    first = trained.trained("mlp").state_dict()
    last = [name for name in first if name.startswith(list(first)[-1].rpartition(".")[0])]
    tensors = {f"first.{name}": values for name, values in first.items()}
    for name, values in first.items():
        changed = values + 0.01 * torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
        tensors[f"second.{name}"] = changed if name in last else values.clone()
    safetensors.torch.save_file({name: values.contiguous() for name, values in tensors.items()}, path)
    return path
