"""What a step that ties looks for, and what it says of it."""

from collections.abc import Iterator, Mapping

from workers.compression.context import Context
from workers.compression.families.model import Array
from workers.compression.similarity.ties import Loaders, find_ties
from workers.compression.specs.errors import NothingCompressed
from workers.compression.specs.steps.share import TieShare


def shared_among(
    tensors: Loaders, spec: TieShare, context: Context
) -> tuple[Mapping[str, str], Iterator[tuple[str, Array]]]:
    """Names of tensors, each mapped to the one that is stored for it; and values of those that change by it."""
    ties = find_ties(tensors, spec.tolerance)
    near = sum(len(members) - 1 for members in ties.near.values())
    if near:
        context.changed(f"{near} tensors are near another, within {spec.tolerance:g} of their norm")
    return ties.shared, ties.representatives(tensors, spec.tolerance)


def summarize(dropped: int, saved: int, spec: TieShare, context: Context) -> None:
    """Says what was done.

    Raises:
        NothingCompressed: Nothing was.
    """
    if not dropped:
        like = f"as near as {spec.tolerance:g}" if spec.tolerance else "identical"
        raise NothingCompressed(f"No two stored tensors of the model are {like}.")
    context.changed(f"{dropped} tensors are stored once with another, which saves {saved} bytes")
