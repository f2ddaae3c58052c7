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
    """``unstructured``, ``N:M`` with N < M, or ``AxB``, numbers up to 99.

    Raises:
        ValueError: Anything else.
    """
    if text == "unstructured":
        return UNSTRUCTURED
    found = re.fullmatch(r"([1-9]\d?)([:x])([1-9]\d?)", text)
    if found is not None and found[2] == "x":
        return Blocks(int(found[1]), int(found[3]))
    if found is not None and int(found[1]) < int(found[3]):
        return Groups(int(found[1]), int(found[3]))
    raise ValueError(
        "no pattern: unstructured, N:M such as 2:4 (N of M in a row stay, N < M), or a block such as 4x1 or 8x8"
    )
