"""What structured pruning needs of a network, whatever file it came from."""

from collections.abc import Callable
from dataclasses import dataclass

from workers.compression.structure.units import Removed, Structure


@dataclass(frozen=True)
class Shrinkable:
    """A network whose units are known.

    Args:
        structure: The units, with the model's own names of its weights.
        shrink: Takes units out of the model, in place; what was read of it before no longer holds.
    """

    structure: Structure
    shrink: Callable[[Removed], None]
