"""Which weights may go alone, and which only together."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Blocks:
    """Blocks of so many outputs and inputs go as a whole; of one by one, every weight goes for itself.

    At the end of an axis that they do not divide they are shorter.
    """

    height: int = 1
    width: int = 1


@dataclass(frozen=True)
class Groups:
    """Of every ``of`` weights next to each other along an output's inputs ``keep`` stay (arXiv:2104.08378 for 2:4).

    A shorter group at the end of an output keeps as many, so that no group has more than ``keep``.
    """

    keep: int
    of: int

    @property
    def sparsity(self) -> float:
        """The share that goes where groups divide the inputs."""
        return 1.0 - self.keep / self.of


Pattern = Blocks | Groups
UNSTRUCTURED = Blocks()


def parse(text: str) -> Pattern:
    """``unstructured``, ``N:M`` or ``AxB``, as specs have them.

    Raises:
        ValueError: Anything else.
    """
    if text == "unstructured":
        return UNSTRUCTURED
    found = re.fullmatch(r"([1-9]\d*)([:x])([1-9]\d*)", text)
    if found is None:
        raise ValueError(f"{text!r} is no pattern: unstructured, N:M or AxB")
    first, last = int(found[1]), int(found[3])
    return Groups(first, last) if found[2] == ":" else Blocks(first, last)
