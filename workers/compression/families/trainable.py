"""What training needs of a network, whatever file it came from."""

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

import torch

from workers.compression.families.model import Model
from workers.compression.families.weights import Kept
from workers.compression.specs.formats import ModelFormat

OutputActivation = Literal["none", "softmax", "log_softmax", "sigmoid"]


@dataclass(frozen=True)
class Entrance:
    """Where a value enters a matrix product or a convolution with a learnt weight.

    Args:
        module: Name of the submodule that the value passes there; it changes nothing until another is put in its place.
        weight: The module's name of the weight.
        value: What the model calls the value; several layers may read the same one.
    """

    module: str
    weight: str
    value: str


@dataclass(frozen=True)
class Trainable:
    """A network that gradients flow through, with values of its own: nothing in it is a view of a mapped file.

    Args:
        module: Takes the model's inputs in order as tensors, returns a tuple of its outputs in order. It comes
            evaluating; between ``train()`` and ``eval()`` it changes as the network would have: dropout, batch norms
            on the batch's figures; a batch norm whose own parameters ask for no gradient stays as in ``eval()``. All
            parameters ask for gradients. Tied weights are one parameter.
        names: Name in the model (as in ``FloatWeight.name``, ``parameters()``) of each of the module's parameters and
            float buffers, by its name in the module (as in ``named_parameters()``, ``named_buffers()``).
        layers: The module's names of its parameters in groups, from the input to the output; the last one is the layer
            that makes the output. Groups are what freezing and rates per layer go by: for a transformer embeddings,
            each block, and the head; else one group per layer.
        taps: Names of hidden states, from the input to the output, that ``tapped`` can give besides the outputs.
        linear: The module's names of weights of linear layers and convolutions, outputs first (axis 0).
        compute_batch: The number of rows the network takes at a time where that is fixed.
        tapped: Over the same parameters under the same names as ``module``, with the same inputs; returns the tuple of
            outputs and a dictionary of hidden states by tap. For transformers ``hidden.0`` (the embeddings) and so
            on, one per block, and the projections ``query.0``, ``key.0``, ``value.0`` of every attention layer that
            has them apart; else the last value of each layer under the layer's name. The mode is that of ``module``.
        output_activation: What turns the last layer's values into the only output; losses want its input.
        entrances: The inputs of layers, in graph order; a weight that several layers share has several. What is put
            there by ``module.set_submodule`` counts in ``module`` alone, not in ``tapped``.
        kept: What has to outlive training for the file's storage, by the module's name of the weight.
    """

    module: torch.nn.Module
    names: Mapping[str, str]
    layers: tuple[tuple[str, ...], ...]
    linear: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()
    compute_batch: int | None = None
    tapped: torch.nn.Module | None = None
    output_activation: OutputActivation = "none"
    entrances: tuple[Entrance, ...] = ()
    kept: Mapping[str, Kept] = field(default_factory=dict)


class TrainableModel(Model):
    """A model whose weights can learn."""

    @abstractmethod
    def trainable(self) -> Trainable:
        """A trainable copy of the network; the model itself does not change.

        Raises:
            UnsupportedOperator: An operator that gradients cannot pass, named.
            UnsupportedTechnique: Weights stored as integers, or a program exported in training mode.
        """

    @abstractmethod
    def adopt(self, trained: Trainable) -> None:
        """Takes over the parameters and float buffers of what ``trainable`` gave; ties stay ties.

        The values are stored in the type in which the model stores them.
        """

    @abstractmethod
    def with_head(self, classes: tuple[str, ...], seed: int) -> "TrainableModel":
        """The same body with a fresh last layer of one output per class (one class: a single value).

        Raises:
            UnsupportedTechnique: No last layer could be told, and why.
        """


_ADAPTERS = {ModelFormat.ONNX: "workers.compression.families.onnx.training.adapter"}
"""Modules with a ``trainable_model`` for formats whose models are opened without torch."""


def as_trainable(model: Model) -> TrainableModel:
    """``model`` as what training works on."""
    if model.format in _ADAPTERS:
        adapter = importlib.import_module(_ADAPTERS[model.format])
        return cast("TrainableModel", adapter.trainable_model(model))
    if not isinstance(model, TrainableModel):
        raise TypeError(f"{type(model).__name__} cannot be trained")
    return model
