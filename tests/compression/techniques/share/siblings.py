"""Models in which tensors repeat, as they come about in practice."""

from pathlib import Path

import onnx
import safetensors.torch
import torch
from torch import nn

from tests import trained


def one_layer_trained_twice(path: Path) -> Path:
    """A residual perceptron that applies one trained layer twice, exported with a copy of the weights for each."""
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
    untied = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), copied, nn.ReLU(), network[5]).eval()
    options = {"input_names": ["input"], "dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
    program = torch.onnx.export(untied, (torch.from_numpy(images[:2]),), dynamo=True, **options)
    proto = program.model_proto
    names = {tensor.name: tensor for tensor in proto.graph.initializer}
    if len({bytes(tensor.raw_data) for tensor in names.values()}) == len(names):
        raise AssertionError("the exporter has tied the copies already")
    onnx.save(proto, path)
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
