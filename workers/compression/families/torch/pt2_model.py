"""An opened ``.pt2``: runs, is counted, and goes back into a file that ``torch.export.load`` opens."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.export.graph_signature import TensorArgument as TensorName
from torch.utils import _pytree as pytree

from workers.compression.data import Dataset
from workers.compression.families.model import Array, Feeds, StoredLayer
from workers.compression.families.observed_inputs import Entries, Observe, gathered, rows_of
from workers.compression.families.tensors.stored import StoredTensor, to_numpy
from workers.compression.families.torch import running
from workers.compression.families.torch.layer_inputs import graph_entries, watched_nodes
from workers.compression.families.torch.layers import StoredAs, layer_name, stored_layers
from workers.compression.families.torch.pt2_buffers import SHIFTS_PREFIX, buffers_of, read_back, tensors_of
from workers.compression.families.torch.pt2_editing import add_buffer, settle, store_as_float
from workers.compression.families.torch.pt2_head import with_fresh_head
from workers.compression.families.torch.pt2_notes import NOTES_NAME, Note, encode_notes, read_notes
from workers.compression.families.torch.pt2_program import first_names, memory_of, placeholders, unshared_tensors
from workers.compression.families.torch.pt2_readers import channel_axis, reader_of, role_of
from workers.compression.families.torch.pt2_restoring import is_looked_up, store_quantized
from workers.compression.families.torch.pt2_training import trainable_program
from workers.compression.families.torch.storage import Storage
from workers.compression.families.torch.training import adopted, quantized_before_training
from workers.compression.families.torch.weights import FloatWeight, TorchModel
from workers.compression.families.trainable import Trainable
from workers.compression.families.weights import LayerInputs, Weight, WeightForm
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.specs.errors import UnsupportedFormat
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import Port


class Pt2Model(TorchModel):
    """An exported program.

    Args:
        program: Checked; techniques edit it in place.
        stored_bytes: Size of the file it came from.
    """

    format = ModelFormat.PT2
    family = Family.NEURAL_NETWORK
    extension = ".pt2"

    def __init__(self, program: ExportedProgram, stored_bytes: int) -> None:
        self.program = program
        self._stored_bytes = stored_bytes
        self._module: Any = None
        self._values = _values(program)
        self._notes = read_notes(program.state_dict)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Tensors that the program takes, in order."""
        found = []
        for spec in self.program.graph_signature.input_specs:
            if spec.kind != InputKind.USER_INPUT or isinstance(spec.arg, ConstantArgument):
                continue
            if not isinstance(spec.arg, TensorName):
                raise UnsupportedFormat(
                    f"The program takes the bare number {spec.arg.name!r} as an input.",
                    reason="pt2_inputs",
                    hint="Export a module that takes tensors only.",
                )
            found.append(_port(spec.arg.name, self._values[spec.arg.name]))
        return tuple(found)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Tensors that the program returns, in order."""
        return tuple(
            _port(spec.arg.name, self._values[spec.arg.name])
            for spec in self.program.graph_signature.output_specs
            if spec.kind == OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorName)
        )

    def run(self, feeds: Feeds) -> list[Array]:
        """One batch through the program."""
        return running.outputs_of(lambda: self._call(feeds))

    def macs(self, feeds: Feeds) -> int:
        """Multiply-accumulates of one batch."""
        return running.count_macs(lambda: self._call(feeds))

    def _call(self, feeds: Feeds) -> list[torch.Tensor]:
        arguments, options = pytree.tree_unflatten(self.flat(feeds), self.program.call_spec.in_spec)
        leaves = pytree.tree_leaves(self._opened()(*arguments, **options))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def _opened(self) -> Any:
        if self._module is None:
            settle(self.program)
            self._module = self.program.module()
        return self._module

    def flat(self, feeds: Feeds) -> list[Any]:
        """One argument per input of the graph."""
        tensors = iter(running.tensors_of(feeds, self.inputs).values())
        return [
            spec.arg.value if isinstance(spec.arg, ConstantArgument) else next(tensors)
            for spec in self.program.graph_signature.input_specs
            if spec.kind == InputKind.USER_INPUT
        ]

    def layer_inputs(
        self, weights: Iterable[Weight], dataset: Dataset, threads: int = 1
    ) -> Iterator[tuple[Weight, LayerInputs]]:
        """Statistics of what enters products and convolutions; padding is left out."""
        weights = tuple(weights)
        observe, entries = self.watched(weights, dataset, threads)
        return gathered(weights, entries, observe)

    def watched(self, weights: Iterable[Weight], dataset: Dataset, threads: int = 1) -> tuple[Observe, Entries]:
        """What runs the rows and gives values by node name, and which of them enter the layers of ``weights``."""
        module = self._opened()
        observe = watched_nodes(module, self.flat, lambda: rows_of(self, dataset, threads))
        return observe, graph_entries(module.graph, weights)

    @property
    def quantized(self) -> dict[str, Note]:
        """Weights that the program restores from integers, codes or scaled floats, by name."""
        return self._notes

    def _helpers(self) -> set[str]:
        """Buffers that are no weight by themselves."""
        state = self.program.state_dict
        found = {name for name in state if name == NOTES_NAME or name.startswith(SHIFTS_PREFIX)}
        return found.union(*(buffers_of(name, note, state) for name, note in self._notes.items()))

    def parameters(self) -> Iterator[tuple[str, StoredTensor]]:
        """Weights and buffers as the operators see them, tied ones once."""
        helpers = self._helpers()
        for name, tensor in unshared_tensors(self.program).items():
            if name in self._notes:
                yield name, self._restored(name)
            elif name not in helpers:
                yield name, StoredTensor.of(tensor)

    def _restored(self, name: str) -> StoredTensor:
        note, state = self._notes[name], self.program.state_dict
        return StoredTensor(note.place.dtype, note.place.shape, lambda: read_back(name, note, state).expanded())

    def float_weights(self) -> Iterator[FloatWeight]:
        """Weights stored as floats that the graph reads."""
        nodes = placeholders(self.program)
        helpers = self._helpers()
        for name, tensor in unshared_tensors(self.program).items():
            if tensor.is_floating_point() and name in nodes and name in self.program.state_dict and name not in helpers:
                yield FloatWeight(name, tensor.detach(), channel_axis(nodes[name]), role=role_of(nodes[name]))

    def values_of(self, name: str) -> torch.Tensor:
        """The values of a weight."""
        found: torch.Tensor = self.program.state_dict[name]
        return found.detach()

    def why_not(self, weight: Weight, form: WeightForm) -> str | None:
        """Codebooks are for whole rows."""
        if isinstance(form, CodebookWeight) and form.blocks.counts[1] > 1:
            return "codebooks that columns do not share have no place in the graph"
        return None

    def replace_values(self, name: str, values: torch.Tensor) -> None:
        """Gives a weight, and all that are tied to it, other values."""
        state = self.program.state_dict
        for tied in self._tied(name):
            is_parameter = isinstance(state[tied], torch.nn.Parameter)
            state[tied] = torch.nn.Parameter(values, requires_grad=False) if is_parameter else values
        self._after_change()

    def store_as(self, name: str, form: Storage) -> None:
        """Edits the graph to read ``form`` and restore it."""
        tied = self._tied(name)
        if isinstance(form, torch.dtype):
            for other in tied:
                store_as_float(self.program, other, form)
        else:
            nodes = placeholders(self.program)
            by_row = any(is_looked_up(nodes[other]) for other in tied)
            note = Note.of(form, reader_of(nodes[name]), by_row=by_row)
            tensors = tensors_of(form, note)
            for other in tied:
                store_quantized(self.program, other, note, tensors)
                self._notes[other] = note
        self._after_change()

    def trainable(self) -> Trainable:
        """A trainable copy of the network."""
        self._refuse_integers()
        return trainable_program(self.program, first_names(self.program), self.inputs)

    def adopt(self, trained: Trainable) -> None:
        """Takes over what was trained, each tensor in its own type and layout in memory."""
        state = self.program.state_dict
        learned = {**dict(trained.module.named_parameters()), **dict(trained.module.named_buffers())}
        first = first_names(self.program)
        values = {first[stored]: adopted(learned[name], state[stored]) for name, stored in trained.names.items()}
        state.update({name: values[first[name]] for name in state if first[name] in values})
        self._after_change()

    def with_head(self, classes: tuple[str, ...], seed: int) -> "Pt2Model":
        """The same body under a fresh last layer; the program has no place for the classes' names."""
        self._refuse_integers()
        first = first_names(self.program)
        times = Counter(first.values())
        shared = frozenset(name for name, other in first.items() if times[other] > 1)
        made = Pt2Model(with_fresh_head(self.program, len(classes), seed, shared), 0)
        made._after_change()
        return made

    def _refuse_integers(self) -> None:
        quantized = next(iter(self._notes), None)
        if quantized is not None:
            raise quantized_before_training(quantized)

    def _tied(self, name: str) -> list[str]:
        place = memory_of(self.program.state_dict[name])
        return [other for other, tensor in self.program.state_dict.items() if memory_of(tensor) == place]

    def _after_change(self) -> None:
        self._module = None
        self._values = _values(self.program)
        self._stored_bytes = sum(tensor.nbytes for tensor in unshared_tensors(self.program).values())

    def changed(self) -> None:
        """To be called after editing ``program``."""
        self._after_change()

    def save(self, path: Path) -> None:
        """Writes the program with ``torch.export.save``, without sample inputs."""
        if self._notes:
            self._write_notes()
        settle(self.program)
        # A path would put the file's name into the archive, and the same model must give the same bytes.
        with path.open("wb") as file:
            torch.export.save(self.program, file)

    def _write_notes(self) -> None:
        notes = encode_notes(self._notes)
        node = add_buffer(self.program, NOTES_NAME, notes)
        node.meta["val"] = node.meta["val"].new_empty(notes.shape)
        self.program.state_dict[NOTES_NAME] = notes

    def stored_layers(self) -> Iterator[StoredLayer]:
        """One entry per module that had parameters, named by the operator that reads its weight."""
        operators: dict[str, str] = {}
        for name, node in placeholders(self.program).items():
            note = self._notes.get(name)
            operators.setdefault(layer_name(name), note.reader if note else reader_of(node))
        return stored_layers(self.parameters(), self._stored_as(), lambda name: operators.get(name) or "parameter")

    def _stored_as(self) -> dict[str, StoredAs]:
        state, own, found = self.program.state_dict, unshared_tensors(self.program), {}
        for name, note in self._notes.items():
            # A codebook that several weights share counts for the first of them.
            size = sum(state[buffer].nbytes for buffer in buffers_of(name, note, state) if buffer in own)
            found[name] = StoredAs(size, float(note.bits))
        return found

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Values as stored, one tensor at a time."""
        for name, tensor in unshared_tensors(self.program).items():
            yield name, to_numpy(tensor)

    def size_bytes(self) -> int:
        """Size of the file the model was opened from; of the values alone once they were changed."""
        return self._stored_bytes

    def load_snippet(self, name: str) -> str:
        """Opens the file with nothing but torch."""
        return f'import torch\n\nmodel = torch.export.load("{name}").module()'

    def threads(self, count: int) -> None:
        """Threads of all torch operators in this process."""
        torch.set_num_threads(count)


def _values(program: ExportedProgram) -> dict[str, Any]:
    return {node.name: node.meta.get("val") for node in program.graph.nodes}


def _port(name: str, value: Any) -> Port:
    shape = tuple(int(size) if isinstance(size, int) else str(size) for size in value.shape)
    return Port(name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch."))
