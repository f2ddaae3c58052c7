"""An ONNX model as what training works on."""

import torch
from onnx import ModelProto

from workers.compression.families.model import Model
from workers.compression.families.onnx.entrances import INPUT, layers_reading
from workers.compression.families.onnx.model import OnnxModel, as_onnx
from workers.compression.families.onnx.packed import unpacked
from workers.compression.families.onnx.training.checking import calls_of, live_places, operator_of
from workers.compression.families.onnx.training.grouping import layer_groups
from workers.compression.families.onnx.training.head import find_head, output_activation
from workers.compression.families.onnx.training.network import GraphNetwork, step_of
from workers.compression.families.onnx.training.new_head import replace_head
from workers.compression.families.onnx.training.operators.call import Tensor, to_tensor
from workers.compression.families.onnx.training.storing import overwrite
from workers.compression.families.onnx.training.taps import TappedNetwork, taps_of
from workers.compression.families.onnx.training.weights import Learned, learned_tensors
from workers.compression.families.onnx.walking import Index, Place, integer_attribute
from workers.compression.families.trainable import Entrance, Trainable, TrainableModel
from workers.compression.specs.errors import UnsupportedOperator, UnsupportedTechnique

_CONVOLUTIONS = frozenset({"Conv", "com.microsoft.FusedConv"})
_PRODUCTS = frozenset({"Gemm", "MatMul", "com.microsoft.FusedMatMul", "com.microsoft.FusedGemm"})


class TrainableOnnx(OnnxModel, TrainableModel):
    """An ONNX model whose graph is read as a torch module; see ``table.supported_operators`` for what it may hold."""

    def trainable(self) -> Trainable:
        """A module with the graph's nodes, its float weights as parameters in float32 (or float64).

        Weights that are stored as codes into a codebook or without their zeros are among them.

        Raises:
            UnsupportedOperator: The graph has operators that training does not pass through, all of them named; or
                its weights are quantized otherwise; or there are none.
        """
        dense = unpacked(self.proto)
        index = Index.of(dense.proto)
        places = live_places(index)
        calls = calls_of(dense.proto, index, places)
        learned = learned_tensors(index, places)
        if all(found.statistic for found in learned):
            raise UnsupportedOperator("The model has no float weights that could learn.")
        names = _module_names(learned)
        entrances = _entrances(index, places, learned)
        numbers = {place: number for number, place in enumerate(entrances)}
        module = GraphNetwork(
            inputs=tuple(port.name for port in self.inputs),
            outputs=tuple(port.name for port in self.outputs),
            steps=[step_of(place, call, numbers.get(place)) for place, call in zip(places, calls, strict=True)],
            constants=_constants(index, places, learned),
            learned={found.value.name: name for found, name in names.items()},
        )
        for found, name in names.items():
            _register(module, name, to_tensor(found.tensor), statistic=found.statistic)
        groups = layer_groups(index, learned, _head(index))
        taps = taps_of(index, places, groups)
        return Trainable(
            module=module,
            names={name: found.value.name for found, name in names.items()},
            layers=tuple(tuple(names[found] for found in group) for group in groups.values()),
            linear=tuple(names[found] for found in learned if _has_outputs_first(index, found)),
            taps=tuple(taps),
            tapped=TappedNetwork(module, taps),
            output_activation=output_activation(index),
            compute_batch=self._fixed_rows(),
            entrances=tuple(
                Entrance(f"entrances.{numbers[place]}", names[found], place.node.input[INPUT])
                for place, found in entrances.items()
            ),
            kept={
                name: dense.kept[found.value.name] for found, name in names.items() if found.value.name in dense.kept
            },
        )

    def adopt(self, trained: Trainable) -> None:
        """Writes the module's parameters and statistics into the stored tensors, in the types these have."""
        dense = unpacked(self.proto)
        stored = {value.name: tensor for value, tensor in Index.of(dense.proto).stored.items()}
        values = {**dict(trained.module.named_parameters()), **dict(trained.module.named_buffers())}
        for name, source in trained.names.items():
            overwrite(stored[source], values[name])
        dense.pack()
        if dense.proto is not self.proto:
            self.proto.CopyFrom(dense.proto)
        self.changed()

    def with_head(self, classes: tuple[str, ...], seed: int) -> "TrainableOnnx":
        """A copy with a fresh last layer of one output per class; an activation behind it stays."""
        proto = ModelProto()
        proto.CopyFrom(self.proto)
        replace_head(proto, max(len(classes), 1), seed)
        made = TrainableOnnx(proto, tokenizer=self._tokenizer)
        made.leaves_out_zeros = self.leaves_out_zeros
        return made

    def _fixed_rows(self) -> int | None:
        sizes = {port.shape[0] for port in self.inputs if port.shape}
        size = next(iter(sizes)) if len(sizes) == 1 else None
        return size if isinstance(size, int) and size > 0 else None


def trainable_model(model: Model) -> TrainableOnnx:
    """``model``, an ONNX model, as what training works on; it shares its protobuf."""
    if isinstance(model, TrainableOnnx):
        return model
    opened = as_onnx(model)
    made = TrainableOnnx(opened.proto, opened.size_bytes(), opened.tokenizer_file())
    made.leaves_out_zeros = opened.leaves_out_zeros
    return made


def _register(module: torch.nn.Module, name: str, values: Tensor, *, statistic: bool) -> None:
    if statistic:
        module.register_buffer(name, values)
    else:
        module.register_parameter(name, torch.nn.Parameter(values))


def _module_names(learned: list[Learned]) -> dict[Learned, str]:
    """Names that a module takes: without dots, and none that it has already."""
    taken = {*dir(GraphNetwork), "entrances", "outputs"}
    names: dict[Learned, str] = {}
    for found in learned:
        name = found.value.name.replace(".", "/")
        while name in taken or hasattr(torch.nn.Module(), name):
            name += "_"
        taken.add(name)
        names[found] = name
    return names


def _entrances(index: Index, places: list[Place], learned: list[Learned]) -> dict[Place, Learned]:
    """The layers that multiply an activation with a learnt weight, in order of execution."""
    weights = {place: found for found in learned if not found.statistic for place in layers_reading(index, found.value)}
    return {place: weights[place] for place in places if place in weights}


def _constants(index: Index, places: list[Place], learned: list[Learned]) -> dict[str, Tensor]:
    values = {found.value for found in learned}
    read = {index.read(place, slot) for place in places for slot in range(len(place.node.input))} | index.outputs
    main = index.scopes[0]
    return {
        value.name: to_tensor(tensor)
        for value, tensor in index.stored.items()
        if value.scope is main and value in read and value not in values
    }


def _head(index: Index) -> Place | None:
    try:
        return find_head(index).product
    except UnsupportedTechnique:
        return None


def _has_outputs_first(index: Index, learned: Learned) -> bool:
    """Whether a convolution reads the tensor, or a product that wants its outputs first or turns them around."""
    if learned.statistic or len(learned.tensor.dims) < 2 or any(reader.slot != 1 for reader in learned.readers):
        return False
    operators = {operator_of(reader.place.node) for reader in learned.readers}
    if operators <= _CONVOLUTIONS:
        return True
    return operators <= _PRODUCTS and all(_outputs_first(index, learned, reader.place) for reader in learned.readers)


def _outputs_first(index: Index, learned: Learned, place: Place) -> bool:
    turned = bool(integer_attribute(place.node, "transB", 0))
    value = index.read(place, 1)
    while value is not None and value != learned.value:
        maker = index.makers.get(value)
        if maker is None or maker.node.op_type not in {"Transpose", "Identity", "Cast"}:
            return False
        turned ^= maker.node.op_type == "Transpose"
        value = index.read(maker, 0)
    return turned and len(learned.tensor.dims) == 2
