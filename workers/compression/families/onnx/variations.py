"""One session for many variants of a model: its weights become inputs that have their old values by default."""

from collections.abc import Mapping

from onnx import ModelProto, NodeProto, TensorProto, helper

from workers.compression.families.model import Array, Feeds
from workers.compression.families.onnx.matrices import weights_of
from workers.compression.families.onnx.sessions import open_session, run_session
from workers.compression.families.onnx.walking import constant_value

# From this version of the format on only initializers that are inputs too can be overridden.
_OVERRIDABLE_IR = 4


class Variations:
    """Runs a model with other values in some of its weights; a session is built once for all of them.

    Args:
        proto: The model; unchanged afterwards.
        inputs: Names of the values that are fed.
        outputs: Names of the values that are wanted.
        threads: Threads of the session.
    """

    def __init__(self, proto: ModelProto, inputs: list[str], outputs: list[str], threads: int) -> None:
        self._names = {
            weight.name: found.value.name for weight, found in weights_of(proto) if found.value.scope.parent is None
        }
        self._inputs = set(inputs)
        self._outputs = outputs
        self._session = open_session(_with_inputs(proto, set(self._names.values())), threads)

    def __contains__(self, name: object) -> bool:
        """Whether the weight of that name can have other values; those of branches cannot."""
        return name in self._names

    def run(self, feeds: Feeds, values: Mapping[str, Array]) -> list[Array]:
        """Outputs with ``values``, in their stored shapes, in place of some weights'."""
        fed = {name: given for name, given in feeds.items() if name in self._inputs}
        fed |= {self._names[name]: given for name, given in values.items()}
        return run_session(self._session, self._outputs, fed)


def _with_inputs(proto: ModelProto, names: set[str]) -> bytes:
    """The model with the stored tensors ``names`` of its main graph as inputs with defaults."""
    varied = ModelProto()
    varied.CopyFrom(proto)
    varied.ir_version = max(varied.ir_version, _OVERRIDABLE_IR)
    graph = varied.graph
    for node in [node for node in graph.node if _is_constant(node, names)]:
        graph.initializer.append(_initializer(node))
        graph.node.remove(node)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    # Old files list all initializers among the inputs; each that stays one is folded by the runtime no more.
    kept = [value for value in graph.input if value.name not in stored]
    added = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(stored[name].dims)) for name in sorted(names)]
    del graph.input[:]
    graph.input.extend([*kept, *added])
    return bytes(varied.SerializeToString())


def _is_constant(node: NodeProto, names: set[str]) -> bool:
    return constant_value(node) is not None and node.output[0] in names


def _initializer(node: NodeProto) -> TensorProto:
    tensor = TensorProto()
    tensor.CopyFrom(constant_value(node))
    tensor.name = node.output[0]
    return tensor
