"""What techniques see of a torch model, whatever file it came from: its float weights, and how each is stored."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from workers.compression.families.model import Model
from workers.compression.families.torch.layers import layer_name
from workers.compression.families.torch.storage import Storage
from workers.compression.families.trainable import TrainableModel
from workers.compression.specs.step import selects


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is stored as floats.

    Args:
        name: Its name among the model's tensors.
        values: Not to be written to.
        channel_axis: The axis whose slices deserve a scale of their own.
        fits_int8: Whether the model's format can store it as integers.
    """

    name: str
    values: torch.Tensor
    channel_axis: int = 0
    fits_int8: bool = True

    def is_selected(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
        """Whether a step's globs leave it in, going by the layer's name or the weight's."""
        names = (layer_name(self.name), self.name)
        included = any(selects(name, include, ()) for name in names)
        return included and all(selects(name, (), exclude) for name in names)


class TorchModel(TrainableModel):
    """A network in torch."""

    @abstractmethod
    def float_weights(self) -> Iterator[FloatWeight]:
        """Weights stored as floats, vectors such as biases among them, tied ones once."""

    @abstractmethod
    def replace_values(self, name: str, values: torch.Tensor) -> None:
        """Gives a weight other values of the same shape and type."""

    @abstractmethod
    def store(self, name: str, form: Storage) -> None:
        """Stores a weight as ``form`` from now on; the model computes with what that restores to."""


def as_torch(model: Model) -> TorchModel:
    """``model`` as what the handlers of torch networks work on."""
    if not isinstance(model, TorchModel):
        raise TypeError(f"{type(model).__name__} is not a torch network")
    return model
