"""An opened ONNX model: one protobuf in memory, a session when it is run."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper

from workers.compression.data import Dataset
from workers.compression.families.model import Array, Feeds, Model, StoredLayer
from workers.compression.families.onnx import forms as stored_forms
from workers.compression.families.onnx.editing import raise_opset
from workers.compression.families.onnx.layer_inputs import layer_inputs
from workers.compression.families.onnx.layers import stored_layers
from workers.compression.families.onnx.macs import count_macs
from workers.compression.families.onnx.matrices import weights_of
from workers.compression.families.onnx.packed import unpacked
from workers.compression.families.onnx.sessions import open_session, run_session
from workers.compression.families.onnx.sparse_floats import without_zeros
from workers.compression.families.onnx.unpacking import UNPACKING_OPSET
from workers.compression.families.onnx.variations import Variations
from workers.compression.families.onnx.walking import Index, array
from workers.compression.families.weights import CompressibleModel, Floats, LayerInputs, Weight, WeightForm
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.formats import Family, ModelFormat
from workers.compression.specs.messages import Port

_SNIPPET = """\
import onnxruntime

session = onnxruntime.InferenceSession("{name}")
outputs = session.run(None, {{{feeds}}})
"""


class OnnxModel(CompressibleModel):
    """A checked ONNX model.

    Args:
        proto: All weights inside; techniques may change it in place and then call ``changed``.
        size_bytes: Size of the file it was read from.
        tokenizer: The tokenizer.json that came along.
    """

    format: ClassVar[ModelFormat] = ModelFormat.ONNX
    family: ClassVar[Family] = Family.NEURAL_NETWORK
    extension: ClassVar[str] = ".onnx"

    def __init__(self, proto: ModelProto, size_bytes: int | None = None, tokenizer: Path | None = None) -> None:
        self.proto = proto
        self._size_bytes = size_bytes
        self._tokenizer = tokenizer
        self._threads = 1
        self._session: onnxruntime.InferenceSession | None = None
        self._ends: tuple[list[str], list[str]] = ([], [])
        self._variations: Variations | None = None
        self._tensors: dict[str, TensorProto] | None = None

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Inputs in order, initializers that old exporters list among them left out."""
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        return tuple(_port(value) for value in self.proto.graph.input if value.name not in stored)

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Outputs that are tensors; maps and sequences, which classical models add, are left out."""
        return tuple(_port(value) for value in self.proto.graph.output if value.type.HasField("tensor_type"))

    def run(self, feeds: Feeds) -> list[Array]:
        """Outputs in order for one batch."""
        session = self._open_session()
        inputs, outputs = self._ends
        missing = [name for name in inputs if name not in feeds]
        if missing:
            raise DatasetMismatch(f"The data has no values for the model's input {missing[0]!r}.")
        return run_session(session, outputs, {name: feeds[name] for name in inputs})

    def save(self, path: Path) -> None:
        """Writes one self-contained ``.onnx`` file, without the zeros in it if they are to be left out."""
        proto = without_zeros(self.proto) if self.leaves_out_zeros else self.proto
        path.write_bytes(_bytes(proto))

    def serialized(self) -> bytes:
        """The bytes of a file that has all zeros in it; the same for the same model."""
        return _bytes(self.proto)

    def stored_layers(self) -> Iterator[StoredLayer]:
        """Layers in order of execution."""
        return stored_layers(self.proto)

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Stored tensors with more than one element, those of branches and ``Constant`` nodes included."""
        for value, tensor in Index.of(self.proto).stored.items():
            if tensor.dims:
                yield value.name, array(tensor)

    def size_bytes(self) -> int:
        """Bytes of the saved ``.onnx`` file."""
        return self._size_bytes if self._size_bytes is not None else self.proto.ByteSize()

    def weights(self) -> tuple[Weight, ...]:
        """Float32 matrices, kernels and tables, those of branches and ``Constant`` nodes included."""
        return tuple(weight for weight, _ in weights_of(self.proto))

    def matrix(self, weight: Weight) -> Floats:
        """The values of one weight."""
        return np.asarray(weight.to_matrix(array(self._tensor(weight))), np.float32)

    def replace(self, matrices: Iterable[tuple[Weight, Floats]]) -> None:
        """Writes other values into stored tensors."""
        for weight, matrix in matrices:
            tensor = self._tensor(weight)
            values = weight.from_matrix(matrix.astype(np.float32, copy=False))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        self._session = self._variations = None

    @contextmanager
    def varied(self, matrices: Iterable[tuple[Weight, Floats]]) -> Iterator[Callable[[Feeds], list[Array]]]:
        """``run`` with other values in some weights: without a session of its own, unless one lies in a branch."""
        if self._variations is None:
            inputs, outputs = ([port.name for port in ports] for ports in (self.inputs, self.outputs))
            self._variations = Variations(self.proto, inputs, outputs, self._threads)
        variations, changed = self._variations, list(matrices)
        if all(weight.name in variations for weight, _ in changed):
            values = {weight.name: weight.from_matrix(np.asarray(matrix, np.float32)) for weight, matrix in changed}
            yield lambda feeds: variations.run(feeds, values)
        else:
            with super().varied(changed) as run:
                yield run
            self._variations = variations

    def store(self, forms: Iterable[tuple[Weight, WeightForm]]) -> None:
        """Restores weights from other forms in the graph."""
        stored_forms.store_forms(self.proto, forms)
        self.changed()

    def why_not(self, weight: Weight, form: WeightForm) -> str | None:
        """Every form can be restored by standard operators, if the weight is not too large."""
        return stored_forms.why_not(weight, form)

    def leave_out_zeros(self) -> None:
        """Raises the opset to what restoring them needs."""
        raise_opset(self.proto, UNPACKING_OPSET)
        self.leaves_out_zeros = True
        self.changed()

    def fill_in_zeros(self) -> None:
        """Fills up weights that lack nothing but zeros; codes stay codes."""
        dense = unpacked(self.proto, frozenset({"zeros"}))
        if dense.kept:
            self.proto.CopyFrom(dense.proto)
            self.leave_out_zeros()

    def layer_inputs(
        self, weights: Iterable[Weight], dataset: Dataset, threads: int = 1
    ) -> Iterator[tuple[Weight, LayerInputs]]:
        """Statistics of what enters products, convolutions and recurrences of the main graph; padding is left out."""
        return layer_inputs(self.proto, weights, dataset, self.inputs, self.tokenizer_file(), threads)

    def _tensor(self, weight: Weight) -> TensorProto:
        if self._tensors is None:
            self._tensors = {weight.name: found.tensor for weight, found in weights_of(self.proto)}
        return self._tensors[weight.name]

    def load_snippet(self, name: str) -> str:
        """Code for onnxruntime alone."""
        feeds = ", ".join(f'"{port.name}": ...' for port in self.inputs)
        return _SNIPPET.format(name=name, feeds=feeds)

    def macs(self, feeds: Feeds) -> int | None:
        """Multiply-accumulates of matrix products, convolutions, recurrences and attention for ``feeds``."""
        return count_macs(self.proto, feeds)

    def tokenizer_file(self) -> Path | None:
        """The tokenizer.json that came with the model."""
        return self._tokenizer

    def threads(self, count: int) -> None:
        """Sets the session's threads; an open session is opened anew when next needed."""
        if count != self._threads:
            self._threads = count
            self._session = self._variations = None

    def changed(self) -> None:
        """To be called after editing ``proto``."""
        self._session = self._variations = None
        self._tensors = None
        self._size_bytes = None

    def _open_session(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            self._session = open_session(self.serialized(), self._threads)
            # Looked up once: a small model's call takes less time than a walk over its stored tensors.
            self._ends = [port.name for port in self.inputs], [port.name for port in self.outputs]
        return self._session


def _bytes(proto: ModelProto) -> bytes:
    return bytes(proto.SerializeToString(deterministic=True))


def _port(value: ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else -1) for dim in kind.shape.dim)
    return Port(name=value.name, shape=shape, dtype=_dtype_name(kind))


def _dtype_name(kind: TypeProto.Tensor) -> str:
    name = str(helper.tensor_dtype_to_np_dtype(kind.elem_type).name) if kind.elem_type else "unknown"
    return "string" if name == "object" else name


def as_onnx(model: Model) -> OnnxModel:
    """``model`` as what a handler registered for ONNX is given."""
    if not isinstance(model, OnnxModel):
        raise UnsupportedTechnique(f"This handler serves ONNX models, not {model.format.value}.")
    return model
