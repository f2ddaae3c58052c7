"""The file that forms are noted in as they are made, and the checkpoints that are copied from it."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from workers.compression.context import Context
from workers.compression.quantization.recording import Arrays, Description
from workers.compression.specs.containers.safetensors_header import SafetensorsHeader, TensorEntry, read_header
from workers.compression.specs.errors import EngineError, InvalidResult
from workers.compression.specs.messages import OUTPUT_FOLDER
from workers.compression.specs.step import Contract

FOLDER: Final = "checkpoints"
# Of the time, checkpoints take at most one part in so many and one: each holds all that was made so far.
REST_FACTOR: Final = 4.0
_PIECE: Final = 1 << 20
_DTYPES: Final[Mapping[str, str]] = {"uint8": "U8", "int8": "I8", "int32": "I32", "float32": "F32"}
_NAMES: Final = {name: np.dtype(dtype) for dtype, name in _DTYPES.items()}


class Entry(Contract):
    """What is noted of one weight."""

    name: str
    description: Description
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """Where an array lies in the journal's file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    end: int


class Journal:
    """Notes forms in order; starts with those of the step's checkpoint if its fingerprint is this one.

    Args:
        context: Of the step; its warnings from here on belong to the forms, and are repeated when they are taken over.
        fingerprint: Of all that the forms depend on.
    """

    def __init__(self, context: Context, fingerprint: str) -> None:
        self._context = context
        self._fingerprint = fingerprint
        self._known_warnings = len(context.warnings)
        self._entries: dict[str, Entry] = {}
        self._places: dict[str, dict[str, _Place]] = {}
        self._started = self._written = time.monotonic()
        self._pause = context.checkpoint_seconds
        self._file: IO[bytes]

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile(dir=self._context.scratch)
        known = self._context.checkpoints.get(self._context.step)
        if known is not None:
            try:
                self._take_over(Path(known.path))
            except EngineError as error:
                self._context.warn(f"{error.detail} The step starts over.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def names(self) -> tuple[str, ...]:
        """Weights that are noted, in the order in which they were."""
        return tuple(self._entries)

    def read(self, name: str) -> tuple[Description, Arrays]:
        """What was noted of a weight."""
        found = {part: self._read(place) for part, place in self._places[name].items()}
        return self._entries[name].description, found

    def add(self, name: str, description: Description, arrays: Arrays) -> None:
        """Notes a weight."""
        end = self._file.seek(0, 2)
        places = {}
        for part, values in arrays.items():
            contiguous = np.ascontiguousarray(values)
            self._file.write(contiguous.reshape(-1).view(np.uint8).data)
            start, end = end, end + contiguous.nbytes
            places[part] = _Place(contiguous.dtype, contiguous.shape, start, end)
        self._entries[name] = Entry(name=name, description=description, parts=tuple(arrays))
        self._places[name] = places

    def write_when_due(self, *, finished: bool) -> None:
        """Writes a checkpoint if the last one is long ago; the last one also where that is not so, if all took long."""
        now = time.monotonic()
        long_enough = now - self._started >= self._context.checkpoint_seconds
        if long_enough if finished else now - self._written >= self._pause:
            self._write(finished=finished)
            self._written = time.monotonic()
            self._pause = max(self._context.checkpoint_seconds, REST_FACTOR * (self._written - now))

    def _write(self, *, finished: bool) -> None:
        context, count = self._context, len(self._entries)
        if not any(self._places.values()):
            return
        folder = context.scratch / OUTPUT_FOLDER / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{context.step.replace('/', '-')}-{count}{'-end' if finished else ''}"
        unfinished, path = folder / f".{name}", folder / f"{name}.safetensors"
        self._file.seek(0)
        with unfinished.open("wb") as file:
            header = self._header()
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
            shutil.copyfileobj(self._file, file, _PIECE)
        unfinished.rename(path)
        context.checkpoint(f"{OUTPUT_FOLDER}/{FOLDER}/{path.name}", count, finished=finished)

    def _header(self) -> bytes:
        entries = [entry.model_dump(mode="json") for entry in self._entries.values()]
        header: dict[str, Any] = {
            "__metadata__": {
                "fingerprint": self._fingerprint,
                "entries": json.dumps(entries, separators=(",", ":")),
                "warnings": json.dumps(self._context.warnings[self._known_warnings :]),
            }
        }
        for index, places in enumerate(self._places.values()):
            for part, place in places.items():
                header[f"{index}:{part}"] = {
                    "dtype": _DTYPES[place.dtype.name],
                    "shape": list(place.shape),
                    "data_offsets": [place.start, place.end],
                }
        encoded = json.dumps(header, separators=(",", ":")).encode()
        return encoded + b" " * (-len(encoded) % 8)

    def _take_over(self, path: Path) -> None:
        header = read_header(path)
        if header.metadata.get("fingerprint") != self._fingerprint:
            raise InvalidResult("The checkpoint is of another quantization.", reason="checkpoint_invalid")
        entries, warnings = _parsed(header)
        by_name = {entry.name: entry for entry in header.tensors}
        begin = header.tensors[0].start
        for index, entry in enumerate(entries):
            self._entries[entry.name] = entry
            self._places[entry.name] = {part: _place(by_name, f"{index}:{part}", begin) for part in entry.parts}
        with path.open("rb") as file:
            file.seek(begin)
            shutil.copyfileobj(file, self._file, _PIECE)
        for warning in warnings:
            self._context.warn(warning)

    def _read(self, place: _Place) -> npt.NDArray[Any]:
        self._file.seek(place.start)
        content = self._file.read(place.end - place.start)
        return np.frombuffer(bytearray(content), place.dtype).reshape(place.shape)


def _parsed(header: SafetensorsHeader) -> tuple[list[Entry], list[str]]:
    try:
        entries = TypeAdapter(list[Entry]).validate_json(header.metadata["entries"])
        return entries, TypeAdapter(list[str]).validate_json(header.metadata["warnings"])
    except (KeyError, ValidationError) as error:
        raise InvalidResult("The checkpoint cannot be read.", reason="checkpoint_invalid") from error


def _place(found: Mapping[str, TensorEntry], name: str, begin: int) -> _Place:
    entry = found.get(name)
    if entry is None or entry.dtype not in _NAMES:
        raise InvalidResult("The checkpoint cannot be read.", reason="checkpoint_invalid")
    return _Place(_NAMES[entry.dtype], entry.shape, entry.start - begin, entry.end - begin)
