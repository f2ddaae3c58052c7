"""Fewer and fewer values of a figure that is reported again and again, such as a loss, but its first and its last."""

from dataclasses import dataclass
from typing import Any

MAX_NAMES = 20
EVERY = 200


@dataclass
class _Line:
    """The values of one name.

    Args:
        seen: How many came.
        told: How many were passed on.
        last: The latest one, if it was not passed on.
    """

    seen: int = 0
    told: int = 0
    last: dict[str, Any] | None = None

    @property
    def stride(self) -> int:
        """Doubles with every ``EVERY`` values that were passed on, so that their number hardly grows any more."""
        return 1 << (self.told // EVERY)


class Thinned:
    """Decides which values of up to ``MAX_NAMES`` figures are passed on."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def passes(self, name: str, data: dict[str, Any], *, room: bool) -> bool:
        """Whether to pass a value on now; one that is not may still be among the ``rest``.

        Args:
            data: What is passed on.
            room: Whether there is room for more than the first value of a name.
        """
        if name not in self._lines and len(self._lines) >= MAX_NAMES:
            return False
        line = self._lines.setdefault(name, _Line())
        line.seen += 1
        if line.seen == 1 or (room and (line.seen - 1) % line.stride == 0):
            line.told += 1
            line.last = None
            return True
        line.last = data
        return False

    def rest(self) -> list[dict[str, Any]]:
        """The last value of every name, where it was not passed on; to be asked once nothing follows."""
        left = [line.last for line in self._lines.values() if line.last is not None]
        for line in self._lines.values():
            line.last = None
        return left
