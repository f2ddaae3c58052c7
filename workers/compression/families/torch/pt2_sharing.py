"""One stored tensor for several names of an exported program; ``torch.export.save`` writes its bytes once."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch.export import ExportedProgram

from workers.compression.families.model import Array
from workers.compression.families.tensors.stored import from_numpy, to_numpy
from workers.compression.families.torch.pt2_notes import CODEBOOK_SUFFIX
from workers.compression.families.torch.pt2_program import memory_of, unshared_tensors
from workers.compression.similarity.identity import same_as


def tensors_to_share(program: ExportedProgram) -> dict[str, Callable[[], Array]]:
    """Weights, buffers and constants by name, tied ones once; not those that the program writes to."""
    written = set(program.graph_signature.buffers_to_mutate.values())
    return {
        name: partial(to_numpy, tensor)
        for name, tensor in unshared_tensors(program).items()
        if name not in written and tensor.is_contiguous()
    }


def share_tensors(program: ExportedProgram, shared: Mapping[str, str], changed: Iterable[tuple[str, Array]]) -> None:
    """Lets names, and those tied to them, show the memory of other tensors; in place.

    Args:
        shared: Names, each mapped to the one whose tensor is to be stored.
        changed: New values of some of the latter.
    """
    for name, values in changed:
        _show(program, name, from_numpy(values))
    for name, kept in shared.items():
        _show(program, name, _holder(program, kept)[kept].detach())


def share_codebooks(program: ExportedProgram) -> None:
    """Lets equal codebooks show one memory, in place."""
    books = {name: tensor for name, tensor in program.state_dict.items() if name.endswith(CODEBOOK_SUFFIX)}
    shared = same_as((name, to_numpy(tensor)) for name, tensor in books.items())
    share_tensors(program, shared, ())


def _show(program: ExportedProgram, name: str, values: torch.Tensor) -> None:
    place = memory_of(_holder(program, name)[name])
    for holder in (program.state_dict, program.constants):
        for other, tensor in list(holder.items()):
            if isinstance(tensor, torch.Tensor) and memory_of(tensor) == place:
                is_parameter = isinstance(tensor, torch.nn.Parameter)
                holder[other] = torch.nn.Parameter(values, requires_grad=False) if is_parameter else values


def _holder(program: ExportedProgram, name: str) -> dict[str, torch.Tensor]:
    holder: dict[str, torch.Tensor] = program.state_dict if name in program.state_dict else program.constants
    return holder
