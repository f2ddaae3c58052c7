"""What an ONNX file must satisfy before onnxruntime sees it.

onnxruntime reads files named by tensors, inlines functions exponentially and loops for as long as the data says; each
check below closes one such way. The official checker and shape inference run on a copy without the large weights.
"""

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from workers.compression.families.onnx.inference import infer_shapes, stored_names
from workers.compression.families.onnx.load_limits import check_expansion
from workers.compression.families.onnx.operators import ALLOWED, ML_DOMAIN, STANDARD_DOMAINS, UNBOUNDED_LOOPS
from workers.compression.families.onnx.skeleton import skeleton
from workers.compression.families.onnx.stored import check_sparse_tensor, check_tensor
from workers.compression.families.onnx.support_vectors import check_support_vectors
from workers.compression.families.onnx.trees import check_trees
from workers.compression.families.onnx.walking import layer_name, subgraphs
from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

MAX_BYTES = (2 << 30) - 1
MAX_NODES = 50_000
MAX_BRANCH_DEPTH = 8
MAX_VALUE_BYTES = 4 << 30

_LFS_POINTER = b"version https://git-lfs"


def parse(data: bytes) -> ModelProto:
    """The model in ``data``, nothing outside it read; raises ``InvalidModel`` where it is none."""
    if data.startswith(_LFS_POINTER):
        raise InvalidModel(
            "This is a Git LFS pointer, not the model it points to.",
            reason="git_lfs_pointer",
            hint="Run `git lfs pull` and upload the file it fetches.",
        )
    if len(data) > MAX_BYTES:
        raise TooLarge("An ONNX file may hold 2 GiB at most, the limit of its encoding.", reason="model_too_large")
    try:
        proto: ModelProto = ModelProto.FromString(data)
    except DecodeError as error:
        raise InvalidModel("The bytes are not an ONNX model: they do not decode.", reason="onnx_invalid") from error
    if not proto.ir_version or not proto.opset_import or not proto.graph.node:
        raise InvalidModel(
            "The bytes are not an ONNX model: version, opset or nodes are missing.", reason="onnx_invalid"
        )
    proto.DiscardUnknownFields()
    return proto


def check(proto: ModelProto) -> ModelProto:
    """Raises what is wrong with ``proto``; else gives its skeleton with all shapes inferred.

    External data must have been brought inside before (``external_data.embed``): here any is refused.
    """
    _check_header(proto)
    _check_size(proto.graph)
    _check_graph(proto.graph)
    inferred = _run_checker(proto)
    _check_value_sizes(inferred.graph)
    check_expansion(proto, inferred)
    return inferred


def _check_header(proto: ModelProto) -> None:
    if proto.functions:
        raise UnsafeModel(
            "The model keeps functions of its own that no node calls.",
            reason="onnx_functions_refused",
            hint="Expand them first: onnx.inliner.inline_local_functions(model).",
        )
    if proto.training_info:
        raise InvalidModel("The model carries training graphs; export it for inference.", reason="onnx_invalid")
    for opset in proto.opset_import:
        if opset.domain not in ALLOWED and _uses_domain(proto.graph, opset.domain):
            raise UnsafeModel(
                f"Operators of domain {opset.domain!r} are not accepted; known are {', '.join(filter(None, ALLOWED))}.",
                reason="onnx_domain_refused",
            )


def _uses_domain(graph: GraphProto, domain: str) -> bool:
    return any(
        node.domain == domain or any(_uses_domain(nested, domain) for nested in subgraphs(node)) for node in graph.node
    )


def _check_size(graph: GraphProto) -> None:
    waiting = [(graph, 0)]
    nodes = 0
    while waiting:
        current, depth = waiting.pop()
        nodes += len(current.node)
        if nodes > MAX_NODES:
            raise TooLarge(f"The graph has more than {MAX_NODES} nodes.", reason="onnx_too_many_nodes")
        if depth > MAX_BRANCH_DEPTH:
            raise TooLarge(f"Branches are nested more than {MAX_BRANCH_DEPTH} deep.", reason="onnx_too_deep")
        waiting.extend((nested, depth + 1) for node in current.node for nested in subgraphs(node))


def _check_graph(graph: GraphProto) -> None:
    names: set[str] = set()
    for tensor in graph.initializer:
        check_tensor(tensor)
        _note_name(tensor.name, names)
    for sparse in graph.sparse_initializer:
        check_sparse_tensor(sparse)
        _note_name(sparse.values.name, names)
    for node in graph.node:
        _check_node(node)
        for name in filter(None, node.output):
            _note_name(name, names)


def _note_name(name: str, names: set[str]) -> None:
    if not name:
        raise InvalidModel("A stored tensor has no name.", reason="onnx_invalid")
    if name in names:
        raise InvalidModel(f"Two values of one graph are called {name[:200]!r}.", reason="onnx_invalid")
    names.add(name)


def _check_node(node: NodeProto) -> None:
    _check_operator(node)
    for attribute in node.attribute:
        _check_attribute(node, attribute)
    if node.domain == ML_DOMAIN:
        check_trees(node)
        check_support_vectors(node)


def _check_operator(node: NodeProto) -> None:
    known = ALLOWED.get(node.domain)
    if known is None:
        raise UnsafeModel(
            f"Operator {node.op_type[:100]!r} is of domain {node.domain[:100]!r}, which is not accepted.",
            reason="onnx_domain_refused",
        )
    if node.op_type in known:
        return
    if node.domain in STANDARD_DOMAINS and node.op_type in UNBOUNDED_LOOPS:
        raise UnsafeModel(
            f"{node.op_type} ({layer_name(node)[:200]}) is refused: nothing bounds how long it runs.",
            reason="onnx_op_refused",
            hint="Export the model with its loops unrolled.",
        )
    raise UnsafeModel(
        f"Operator {node.op_type[:100]!r} of domain {node.domain or 'ai.onnx'!r} is not one of those accepted.",
        reason="onnx_op_refused",
    )


def _check_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    if attribute.ref_attr_name:
        raise InvalidModel(f"{layer_name(node)[:200]} refers to a function's attribute.", reason="onnx_invalid")
    if attribute.HasField("t"):
        check_tensor(attribute.t)
    for tensor in attribute.tensors:
        check_tensor(tensor)
    if attribute.HasField("sparse_tensor"):
        check_sparse_tensor(attribute.sparse_tensor)
    for sparse in attribute.sparse_tensors:
        check_sparse_tensor(sparse)
    nested = [attribute.g] if attribute.HasField("g") else []
    nested.extend(attribute.graphs)
    if nested and (node.op_type != "If" or node.domain not in STANDARD_DOMAINS):
        raise UnsafeModel(f"{node.op_type[:100]} holds a graph; only If may.", reason="onnx_op_refused")
    for graph in nested:
        _check_graph(graph)


def _run_checker(proto: ModelProto) -> ModelProto:
    light = skeleton(proto)
    try:
        onnx.checker.check_model(light, full_check=True)
        stored = {value.name for value in light.graph.input} - {value.name for value in proto.graph.input}
        return infer_shapes(light, frozenset(stored | stored_names(proto.graph)))
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:
        raise InvalidModel(f"ONNX's checker refuses the model: {_first_line(error)}", reason="onnx_invalid") from error


def _first_line(error: Exception) -> str:
    return next((line.strip()[:500] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check_value_sizes(graph: GraphProto) -> None:
    for value in (*graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if not kind.elem_type or not kind.HasField("shape"):
            continue
        size = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        for dim in kind.shape.dim:
            size *= max(dim.dim_value, 0) if dim.HasField("dim_value") else 1
        if size > MAX_VALUE_BYTES:
            raise TooLarge(
                f"{value.name[:200]!r} would take {size >> 20} MiB while running.", reason="onnx_value_too_large"
            )
    for node in graph.node:
        for nested in subgraphs(node):
            _check_value_sizes(nested)
