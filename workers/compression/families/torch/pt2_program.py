"""Exported programs: rebuilt from a checked document, and read as a graph over stored tensors."""

import torch
from torch._export.serde import schema
from torch._export.serde.serialize import ExportedProgramDeserializer, _dict_to_dataclass
from torch._export.verifier import SpecViolationError
from torch._ops import OpOverload
from torch.export import ExportedProgram

from workers.compression.families.torch.pt2_gate import GatedProgram
from workers.compression.specs.errors import InvalidModel

_BUILD_ERRORS = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError,
    NotImplementedError, SyntaxError, RecursionError, SpecViolationError,
)  # fmt: skip


def build_program(gated: GatedProgram) -> ExportedProgram:
    """The program of a gated archive; ``torch.export.load`` is bypassed, for it would read the archive itself.

    Raises:
        InvalidModel: torch finds the program inconsistent.
    """
    try:
        program = _dict_to_dataclass(schema.ExportedProgram, gated.document)  # type: ignore[no-untyped-call]  # torch's
        return ExportedProgramDeserializer().deserialize(program, gated.weights, gated.constants, None)
    except _BUILD_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise InvalidModel(f"torch cannot rebuild the exported program: {reason}", reason="pt2_invalid") from error


def placeholders(program: ExportedProgram) -> dict[str, torch.fx.Node]:
    """The graph's input node of each stored tensor by the tensor's name, in graph order."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return {
        spec.target: nodes[spec.arg.name]
        for spec in program.graph_signature.input_specs
        if spec.target is not None and spec.arg.name in nodes
    }


def stored_tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Weights, buffers and constants by name, in graph order."""
    everything = {**program.state_dict, **program.constants}
    ordered = {name: everything.pop(name) for name in placeholders(program) if name in everything}
    return {**ordered, **everything}


def unshared_tensors(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Stored tensors by name; of those that show the same memory only the first."""
    seen = set()
    found = {}
    for name, tensor in stored_tensors(program).items():
        place = memory_of(tensor)
        if place not in seen or not tensor.numel():
            found[name] = tensor
        seen.add(place)
    return found


def first_names(program: ExportedProgram) -> dict[str, str]:
    """The first name of each stored tensor that shows the same memory, by name."""
    first: dict[tuple[object, ...], str] = {}
    found = {}
    for name, tensor in stored_tensors(program).items():
        # Empty tensors all lie at one place and are yet not one.
        found[name] = first.setdefault(memory_of(tensor), name) if tensor.numel() else name
    return found


def memory_of(tensor: torch.Tensor) -> tuple[object, ...]:
    """What tells whether two tensors are the same part of memory."""
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def users_of(node: torch.fx.Node) -> list[torch.fx.Node]:
    """Operators that read ``node``, in graph order."""
    return [candidate for candidate in node.graph.nodes if candidate in node.users]


def operator_name(node: torch.fx.Node) -> str:
    """Name of an aten operator without overload, such as ``linear``; empty for all else."""
    target = node.target
    return str(target).removeprefix("aten.").partition(".")[0] if isinstance(target, OpOverload) else ""
