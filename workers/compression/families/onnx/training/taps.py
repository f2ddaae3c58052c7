"""The hidden states behind each layer, and a module that gives them besides the outputs."""

from collections.abc import Mapping, Sequence

import torch

from workers.compression.families.onnx.training.checking import operator_of
from workers.compression.families.onnx.training.network import GraphNetwork
from workers.compression.families.onnx.training.operators import elementwise, normalization
from workers.compression.families.onnx.training.operators.call import Tensor
from workers.compression.families.onnx.training.weights import Learned
from workers.compression.families.onnx.walking import Index, Place

_SAME_SHAPE = elementwise.TABLE.keys() | normalization.TABLE.keys()


class TappedNetwork(torch.nn.Module):
    """Returns the outputs and a dictionary of hidden states; parameters, figures and mode are those of ``network``.

    Args:
        taps: By name the value of the graph that is given.
    """

    def __init__(self, network: GraphNetwork, taps: Mapping[str, str]) -> None:
        super().__init__()
        self._source = (network,)  # in a tuple, so that the parameters keep their names here
        self._taps = dict(taps)
        for name, parameter in network.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, *inputs: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """One batch."""
        (network,) = self._source
        parameters = {name: getattr(self, name) for name in self._parameters}
        names = (*network.outputs, *self._taps.values())
        values = network.values(inputs, names, parameters)
        outputs, hidden = values[: len(network.outputs)], values[len(network.outputs) :]
        return outputs, dict(zip(self._taps, hidden, strict=True))


def taps_of(index: Index, places: Sequence[Place], groups: Mapping[str, Sequence[Learned]]) -> dict[str, str]:
    """By layer, the last one left out, its last value: past activations, up to where paths part."""
    order = {place: position for position, place in enumerate(places)}
    owners = {reader.place for members in groups.values() for found in members for reader in found.readers}
    last = {
        name: max((reader.place for found in members for reader in found.readers[:1]), key=order.__getitem__)
        for name, members in list(groups.items())[:-1]
    }
    return {name: index.made(_followed(index, place, owners)).name for name, place in last.items()}


def _followed(index: Index, place: Place, owners: set[Place]) -> Place:
    while True:
        readers = index.readers.get(index.made(place), ())
        follower = readers[0].place if len(readers) == 1 else None
        if follower is None or follower in owners or operator_of(follower.node) not in _SAME_SHAPE:
            return place
        place = follower
