"""What a child left behind, looked at as what it is: files that an attacker may have written."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.messages import MAX_RESULT_BYTES, OUTPUT_FOLDER, RESULT_FILE, Outcome

_PIECE_BYTES = 1 << 20


class NoResult(Exception):
    """The child wrote no result file."""


def read_outcome(folder: Path) -> Outcome:
    """The parsed ``result.json``.

    Raises:
        NoResult: there is none.
        InvalidResult: it is too large, no plain file, or does not satisfy its contract.
    """
    try:
        content = _read_plain(folder, RESULT_FILE, MAX_RESULT_BYTES)
    except FileNotFoundError as error:
        raise NoResult from error
    try:
        outcome = Outcome.model_validate_json(content)
        # Free-form members may still hold NaN, which is no JSON, or NUL, which PostgreSQL stores in no text.
        if "\\u0000" in json.dumps(outcome.model_dump(mode="json"), allow_nan=False):
            raise InvalidResult("The result holds a NUL character.", reason="result_invalid")
    except (ValidationError, ValueError) as error:
        raise InvalidResult("The result does not satisfy its contract.", reason="result_invalid") from error
    if (outcome.result is None) == (outcome.failure is None):
        raise InvalidResult("The result holds neither a result nor a failure.", reason="result_invalid")
    return outcome


def made_file(folder: Path, relative: str, max_bytes: int) -> Path:
    """The path of a file that the child names in its result; safe to use only once the child is dead.

    Raises:
        InvalidResult: not below ``out/``, not there, a link, empty or too large.
    """
    parts = _parts_of(relative)
    os.close(_open_made(folder, parts, max_bytes))
    return folder.joinpath(*parts)


def copy_made(
    folder: Path, relative: str, max_bytes: int, target: Path, keep_on: Callable[[], bool]
) -> tuple[str, int]:
    """Copies a file that the child names while it lives and may still change it, links or anything else included.

    Args:
        target: A new file, out of the child's reach.
        keep_on: Asked before every piece; what has been copied by then is to be thrown away if it says no.

    Returns:
        The sha256 and the size of what was copied.

    Raises:
        InvalidResult: not below ``out/``, not there, a link, empty, too large, or given up.
    """
    digest, size = hashlib.sha256(), 0
    descriptor = _open_made(folder, _parts_of(relative), max_bytes)
    with os.fdopen(descriptor, "rb") as source, target.open("xb") as copy:
        while piece := source.read(_PIECE_BYTES):
            size += len(piece)
            if size > max_bytes or not keep_on():
                raise InvalidResult("The file grew too large or was given up.", reason="output_size")
            digest.update(piece)
            copy.write(piece)
    if size == 0:
        raise InvalidResult("The file is empty.", reason="output_size")
    return digest.hexdigest(), size


def remove_made(folder: Path, relative: str) -> None:
    """Removes a file that the child names while it lives; nothing happens if it is not there."""
    with contextlib.suppress(OSError, InvalidResult):
        parts = _parts_of(relative)
        below = _open_folder(folder, parts[:-1])
        try:
            os.unlink(parts[-1], dir_fd=below)
        finally:
            os.close(below)


def hash_of(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_plain(folder: Path, name: str, max_bytes: int) -> bytes:
    try:
        descriptor = _open_plain(folder, (name,))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidResult("The result file is no plain file.", reason="result_invalid") from error
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InvalidResult("The result file is too large.", reason="result_invalid")
    return content


def _parts_of(relative: str) -> tuple[str, ...]:
    parts = PurePosixPath(relative).parts
    if len(parts) < 2 or parts[0] != OUTPUT_FOLDER or ".." in parts:
        raise InvalidResult("The process named a file outside its folder.", reason="output_outside")
    return parts


def _open_made(folder: Path, parts: tuple[str, ...], max_bytes: int) -> int:
    try:
        descriptor = _open_plain(folder, parts)
    except OSError as error:
        raise InvalidResult("The process named a file that is not there.", reason="output_missing") from error
    if not 0 < os.fstat(descriptor).st_size <= max_bytes:
        os.close(descriptor)
        raise InvalidResult("The file is empty or too large.", reason="output_size")
    return descriptor


def _open_plain(folder: Path, parts: tuple[str, ...]) -> int:
    """Opens a regular file without following a link at any step below ``folder``."""
    descriptor = _open_folder(folder, parts[:-1])
    try:
        # Without O_NONBLOCK opening a named pipe would wait for a writer, and a leased file for its holder.
        file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(file)
        raise OSError(f"{parts[-1]} is not a plain file")
    return file


def _open_folder(folder: Path, parts: tuple[str, ...]) -> int:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for part in parts:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor
