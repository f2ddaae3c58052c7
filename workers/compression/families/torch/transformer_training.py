"""What training needs of a transformers module."""

import copy
import inspect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.utils.hooks import RemovableHandle

from workers.compression.families.trainable import Trainable

_PREFIX: Final = "network."
_PROJECTIONS: Final = {
    **dict.fromkeys(("query", "q_proj", "q_lin", "q"), ("query",)),
    **dict.fromkeys(("key", "k_proj", "k_lin", "k"), ("key",)),
    **dict.fromkeys(("value", "v_proj", "v_lin", "v"), ("value",)),
    **dict.fromkeys(("c_attn", "Wqkv"), ("query", "key", "value")),
}
"""What the layers of attention are called, and what each gives, side by side in its last axis."""
_LINEAR: Final = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


class PositionalTransformer(torch.nn.Module):
    """A transformers module that takes its inputs in order and returns a tuple.

    Args:
        inputs: Names of the inputs in order.
        output: Field of the module's result.
    """

    def __init__(self, network: torch.nn.Module, inputs: Sequence[str], output: str) -> None:
        super().__init__()
        self.network = network
        self.inputs = tuple(inputs)
        self.output = output

    def call(self, inputs: tuple[torch.Tensor, ...], **options: Any) -> Any:
        """The module's own result."""
        arguments = dict(zip(self.inputs, inputs, strict=True))
        if takes(self.network, "use_cache"):
            options["use_cache"] = False
        return self.network(**arguments, **options)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The outputs."""
        return (getattr(self.call(inputs), self.output),)


class TappedTransformer(PositionalTransformer):
    """The same with hidden states and attention projections by tap."""

    def forward(self, *inputs: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
        """The outputs and [batch, sequence, width] by tap."""
        with _projections(self.network) as projections:
            result = self.call(inputs, output_hidden_states=True)
        hidden = {f"hidden.{index}": states for index, states in enumerate(result.hidden_states)}
        return (getattr(result, self.output),), hidden | projections


@contextmanager
def _projections(network: torch.nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """Collects what the attention layers' projections give while it is open, in the order of the calls."""
    found: dict[str, torch.Tensor] = {}
    calls: dict[str, int] = defaultdict(int)

    def collect(kinds: tuple[str, ...], output: torch.Tensor) -> None:
        for kind, part in zip(kinds, output.chunk(len(kinds), dim=-1), strict=True):
            found[f"{kind}.{calls[kind]}"] = part
            calls[kind] += 1

    def listen(module: torch.nn.Module, kinds: tuple[str, ...]) -> RemovableHandle:
        return module.register_forward_hook(lambda _module, _inputs, output: collect(kinds, output))

    handles = [listen(module, kinds) for module, kinds in _projecting(network)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _projecting(network: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, tuple[str, ...]]]:
    for name, module in network.named_modules():
        kinds = _PROJECTIONS.get(name.rpartition(".")[2])
        if kinds is not None and isinstance(getattr(module, "weight", None), torch.Tensor):
            yield module, kinds


def trainable_transformer(network: torch.nn.Module, inputs: Sequence[str], output: str) -> Trainable:
    """A trainable copy of a module.

    Args:
        inputs: Names of the inputs in order.
        output: Field of the module's result.
    """
    own = copy.deepcopy(network).float().requires_grad_(requires_grad=True)
    stored = own.state_dict().keys()
    buffers = (name for name, tensor in own.named_buffers() if tensor.is_floating_point() and name in stored)
    names = [*(name for name, _ in own.named_parameters()), *buffers]
    return Trainable(
        module=PositionalTransformer(own, inputs, output),
        names={_PREFIX + name: name for name in names},
        layers=tuple(tuple(_PREFIX + name for name in group) for group in _layers(own) if group),
        linear=tuple(_PREFIX + name for name in _linear_weights(own)),
        taps=tuple(_taps(own)),
        tapped=TappedTransformer(own, inputs, output),
    )


def _taps(network: torch.nn.Module) -> Iterator[str]:
    config: Any = network.config
    depth = int(config.num_hidden_layers)
    yield from (f"hidden.{index}" for index in range(depth + 1))
    # Layers that share their weights run one module several times, so modules are not what is counted.
    kinds = dict.fromkeys(kind for _, given in _projecting(network) for kind in given)
    yield from (f"{kind}.{index}" for index in range(depth) for kind in kinds)


def _layers(network: torch.nn.Module) -> list[list[str]]:
    """Embeddings; each block; pooler and head. What a body has after its blocks belongs to the last one."""
    places = _Places(network)
    aliases: dict[int, list[str]] = defaultdict(list)
    for name, parameter in network.named_parameters(remove_duplicate=False):
        aliases[id(parameter)].append(name)
    groups: list[list[str]] = [[] for _ in range(places.blocks + 2)]
    for names in aliases.values():
        # A table that the head reads as well makes the output, so it counts as the head's.
        where = [places.of(name) for name in names]
        groups[places.head if places.head in where else where[0]].append(names[0])
    if places.has_head:
        return groups
    return [*groups[:-2], groups[-2] + groups[-1]]


class _Places:
    """Which group a parameter belongs to: 0 for embeddings, 1 and on for blocks, then the head."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network
        blocks = next((name, mod) for name, mod in network.named_modules() if isinstance(mod, torch.nn.ModuleList))
        self._path, self.blocks = f"{blocks[0]}.", len(blocks[1])
        self.head = self.blocks + 1
        prefix = str(network.base_model_prefix)
        self.has_head = hasattr(network, prefix)
        self._body = f"{prefix}." if self.has_head else ""
        names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
        self._first = next(index for index, name in enumerate(names) if name.startswith(self._path))
        self._order = {name: index for index, name in enumerate(names)}

    def of(self, name: str) -> int:
        if name.startswith(self._path):
            return 1 + int(name.removeprefix(self._path).partition(".")[0])
        if not name.startswith(self._body) or name.startswith(f"{self._body}pooler."):
            return self.head
        is_table = isinstance(self.network.get_submodule(name.rpartition(".")[0]), torch.nn.Embedding)
        return 0 if is_table or self._order[name] < self._first else self.blocks


def _linear_weights(network: torch.nn.Module) -> Iterator[str]:
    tables = {id(module.weight) for module in network.modules() if isinstance(module, torch.nn.Embedding)}
    owners = dict(network.named_modules())
    for name, parameter in network.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and isinstance(owners[owner], _LINEAR) and id(parameter) not in tables:
            yield name


def takes(network: torch.nn.Module, argument: str) -> bool:
    """Whether the module has an argument of that name."""
    return argument in inspect.signature(network.forward).parameters
