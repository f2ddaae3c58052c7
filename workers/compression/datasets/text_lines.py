"""Lines of a UTF-8 file, none longer than 1 MB."""

from collections.abc import Iterator
from pathlib import Path

from workers.compression.specs.errors import InvalidDataset, TooLarge

MAX_LINE_BYTES = 1 << 20


def lines(path: Path, prefix: str) -> Iterator[bytes]:
    """Raw lines with their ends, each valid UTF-8; ``prefix`` begins the reasons (``csv_encoding``, …)."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise TooLarge(
                    f"Line {number} is longer than {MAX_LINE_BYTES} bytes.", reason=f"{prefix}_line_too_long"
                )
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidDataset(f"Line {number} is not UTF-8.", reason=f"{prefix}_encoding") from error
            yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
