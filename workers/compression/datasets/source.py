"""What every dataset format comes down to: raw rows by number, and raw labels."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workers.compression.specs.errors import InvalidDataset, TooLarge
from workers.compression.specs.formats import DatasetFormat
from workers.compression.specs.messages import Port

Array = npt.NDArray[np.generic]
Arrays = dict[str, Array]
Rows = npt.NDArray[np.int64]

MAX_ROWS = 10_000_000
MAX_DECODED_BYTES = 4 << 30


def _nothing() -> None:
    """Where everything was read at once."""


@dataclass(frozen=True)
class Source:
    """An opened dataset file.

    Args:
        format: How it is stored.
        rows: Number of rows.
        features: Name, shape (rows first; empty for a constant) and dtype of each feature.
        read: Features of the rows asked for, first axis rows; text as objects of ``str``, images as encoded bytes.
        target: Raw labels, one per row: numbers, or objects of ``str``.
        target_name: The label's column or array.
        integer_labels: Whether integers in ``target`` are integers by their type and not only by their look.
        constants: 0-d arrays, fed as they are.
        groups: First rows of the groups in which the file is decoded, where not all of them are held at once.
        groups_mixed: Among how many of them rows may be shuffled without decoding any of them twice.
        verify: Reads what ``open_source`` put off, so that an inspection finds every fault there is.
        warnings: What the user should know about the file.
    """

    format: DatasetFormat
    rows: int
    features: tuple[Port, ...]
    read: Callable[[Rows], Arrays]
    target: Array | None = None
    target_name: str = "target"
    integer_labels: bool = False
    constants: Arrays = field(default_factory=dict)
    groups: Rows | None = None
    groups_mixed: int = 1
    verify: Callable[[], None] = _nothing
    warnings: tuple[str, ...] = ()


def check_rows(rows: int) -> None:
    """Raises ``TooLarge`` or ``InvalidDataset`` for a number of rows that cannot be served."""
    if rows > MAX_ROWS:
        raise TooLarge(f"The dataset has more than {MAX_ROWS} rows.", reason="dataset_too_large")
    if rows == 0:
        raise InvalidDataset("The dataset has no rows.", reason="dataset_empty")


def check_decoded(size: int) -> None:
    """Raises ``TooLarge`` once ``size`` decoded bytes are too many to hold."""
    if size > MAX_DECODED_BYTES:
        raise TooLarge(f"The dataset decodes to more than {MAX_DECODED_BYTES} bytes.", reason="dataset_too_large")


def port_of(name: str, values: Array) -> Port:
    """The feature that ``values`` are; text is ``str`` whatever numpy calls it."""
    return Port(name=name, shape=values.shape, dtype="str" if values.dtype.kind in "OU" else values.dtype.name)
