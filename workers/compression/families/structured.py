"""What structured pruning needs of a network, whatever file it came from."""

from typing import Protocol

from workers.compression.structure.units import Removed, Structure


class Shrinkable(Protocol):
    """A network whose units are known."""

    @property
    def structure(self) -> Structure:
        """The units, with the model's own names of its weights."""

    def shrink(self, removed: Removed) -> None:
        """Takes units out of the model, in place; what was read of it before no longer holds."""
