"""A network whose weights learn directly or through what stands in for them."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call

from workers.compression.families.trainable import Trainable
from workers.compression.training.substitutes import Codebook, Masked, Shared


class Network(nn.Module):
    """A trainable body, some of whose weights are computed from other parameters.

    Args:
        trainable: The body; its parameters' ``requires_grad`` says which of them learn.
        substitutes: By the body's name of a weight the module that computes it, without arguments; that weight itself
            does not learn. Tied weights share one substitute, since they are one parameter.
    """

    def __init__(self, trainable: Trainable, substitutes: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        self.body = trainable.module
        self._names = tuple(substitutes or {})
        self.substitutes = nn.ModuleList((substitutes or {}).values())
        for name in self._names:
            self.body.get_parameter(name).requires_grad_(False)

    def forward(self, *inputs: torch.Tensor, via: nn.Module | None = None) -> object:
        """What the body, or ``via``, a module that shares its parameters, makes of the inputs."""
        module = via or self.body
        if not self._names:
            return module(*inputs)
        return functional_call(module, self.computed(), inputs)

    def computed(self) -> dict[str, torch.Tensor]:
        """The substituted weights' present values."""
        return {name: module() for name, module in zip(self._names, self.substitutes, strict=True)}

    def learnt_by(self, name: str) -> tuple[str, ...]:
        """Names of the parameters that make up a weight of the body: those of its substitute, or itself."""
        if name not in self._names:
            return (f"body.{name}",)
        place = self._names.index(name)
        return tuple(f"substitutes.{place}.{own}" for own, _ in self.substitutes[place].named_parameters())

    @torch.no_grad()
    def settle(self) -> None:
        """Writes the substituted weights' values into the body."""
        for name, values in self.computed().items():
            self.body.get_parameter(name).copy_(values)

    def learning(self) -> dict[str, nn.Parameter]:
        """Parameters that learn at present, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def count(self) -> int:
        """Values that learn at present; zeros that stay are not counted."""
        keepers = (module for module in self.substitutes.modules() if isinstance(module, Masked | Shared | Codebook))
        fixed = sum(int((~module.mask).sum()) for module in keepers)
        return sum(parameter.numel() for parameter in self.learning().values()) - fixed

    def state(self) -> dict[str, torch.Tensor]:
        """All that training may change: parameters, masks, and float buffers such as a batch norm's figures."""
        buffers = {name: values for name, values in self.body.named_buffers() if values.is_floating_point()}
        return {
            **{name: parameter.detach() for name, parameter in self.named_parameters()},
            **self.substitutes.state_dict(prefix="substitutes."),
            **{f"body.{name}": values for name, values in buffers.items()},
        }

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what ``state`` gave."""
        for name, values in self.state().items():
            values.copy_(state[name])
