"""What techniques see of a torch model, whatever file it came from: its float weights, and how each is stored."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from workers.compression.families.model import Array, Feeds, Model
from workers.compression.families.torch.layers import layer_name
from workers.compression.families.torch.storage import Storage, storage_of
from workers.compression.families.trainable import TrainableModel
from workers.compression.families.weights import CompressibleModel, Floats, Role, Weight, WeightForm
from workers.compression.quantization.form_sizes import scheme_of, uniform_bits
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.step import selects


@dataclass(frozen=True)
class FloatWeight:
    """A weight that is stored as floats.

    Args:
        name: Its name among the model's tensors.
        values: Not to be written to.
        channel_axis: The axis whose slices deserve a scale of their own.
        fits_integers: Whether the model's format has a place for it as integers.
        role: What reads it.
    """

    name: str
    values: torch.Tensor
    channel_axis: int = 0
    fits_integers: bool = True
    role: Role = "linear"

    @property
    def weight(self) -> Weight:
        """The weight as techniques for all formats see it."""
        rank = self.values.dim()
        first = self.channel_axis % rank
        order = (first, *(axis for axis in range(rank) if axis != first))
        dtype = str(self.values.dtype).removeprefix("torch.")
        return Weight(self.name, layer_name(self.name), tuple(self.values.shape), dtype, self.role, order)

    def is_selected(self, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
        """Whether a step's globs leave it in, going by the layer's name or the weight's."""
        names = (layer_name(self.name), self.name)
        included = any(selects(name, include, ()) for name in names)
        return included and all(selects(name, (), exclude) for name in names)


class TorchModel(TrainableModel, CompressibleModel):
    """A network in torch."""

    @abstractmethod
    def float_weights(self) -> Iterator[FloatWeight]:
        """Weights stored as floats, vectors such as biases among them, tied ones once."""

    def weights(self) -> tuple[Weight, ...]:
        """Float matrices, kernels and tables."""
        return tuple(found.weight for found in self.float_weights() if found.values.dim() > 1)

    def matrix(self, weight: Weight) -> Floats:
        """The values of one weight."""
        return np.asarray(weight.to_matrix(self.values_of(weight.name).float().numpy()), np.float32)

    def replace(self, matrices: Iterable[tuple[Weight, Floats]]) -> None:
        """Gives weights other values in their own type."""
        for weight, matrix in matrices:
            self._replace(weight, matrix)

    def _replace(self, weight: Weight, matrix: Floats) -> None:
        values = torch.from_numpy(np.array(weight.from_matrix(matrix), np.float32))
        self.replace_values(weight.name, values.to(self.values_of(weight.name).dtype))

    def store(self, forms: Iterable[tuple[Weight, WeightForm]]) -> None:
        """Stores weights in other forms."""
        for weight, form in forms:
            reason = self.why_not(weight, form)
            if reason is not None:
                raise UnsupportedTechnique(f"{weight.name} cannot be stored in this form: {reason}.")
            stored = storage_of(weight, form)
            if isinstance(stored, torch.dtype):
                self._replace(weight, form.restored())
            self.store_as(weight.name, stored)

    @contextmanager
    def varied(self, matrices: Iterable[tuple[Weight, Floats]]) -> Iterator[Callable[[Feeds], list[Array]]]:
        """``run`` of a model with other values in some weights; afterwards this one is as it was before."""
        before: list[tuple[torch.Tensor, torch.Tensor]] = []
        try:
            for weight, matrix in matrices:
                # Written in place, for a module that was built from these tensors is slow to build anew.
                values = self.values_of(weight.name)
                before.append((values, values.clone()))
                values.copy_(torch.from_numpy(np.array(weight.from_matrix(matrix), np.float32)))
            yield self.run
        finally:
            for values, kept in before:
                values.copy_(kept)

    @abstractmethod
    def values_of(self, name: str) -> torch.Tensor:
        """The values of a weight that is stored as floats, in the memory that the model computes with."""

    def stored_bits(self, weight: Weight, form: UniformWeight) -> int:
        """Scales take the weight's own type, zero points a byte each or less."""
        bits, scale_bits = form.grid.bits, 8 * getattr(torch, weight.dtype).itemsize
        zero_bits = self.zero_point_bits(bits)
        return uniform_bits(form.blocks, bits, scheme_of(form), scale_bits=scale_bits, zero_bits=zero_bits)

    def zero_point_bits(self, bits: int) -> int:
        """What the format stores a zero point of a weight of so many bits in."""
        return 8

    @abstractmethod
    def replace_values(self, name: str, values: torch.Tensor) -> None:
        """Gives a weight other values of the same shape and type."""

    @abstractmethod
    def store_as(self, name: str, form: Storage) -> None:
        """Stores a weight as ``form`` from now on; the model computes with what that restores to."""


def as_torch(model: Model) -> TorchModel:
    """``model`` as what the handlers of torch networks work on."""
    if not isinstance(model, TorchModel):
        raise TypeError(f"{type(model).__name__} is not a torch network")
    return model
