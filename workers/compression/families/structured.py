"""What structured pruning needs of a network, whatever file it came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.compression.structure.units import Group, Removed, Structure


@dataclass(frozen=True)
class Shrinkable:
    """A network whose units are known.

    Args:
        structure: The units, with the model's own names of its weights.
        groups: Those that may go.
        shrink: Takes units out of the model, in place; what was read of it before no longer holds.
        alike: Whether as many have to go from every group.
    """

    structure: Structure
    groups: Sequence[Group]
    shrink: Callable[[Removed], None]
    alike: bool = False
