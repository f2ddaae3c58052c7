"""A multipart body parsed as it arrives: small fields into memory, the one file into a sink, piece by piece."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import InvalidRequest, InvalidSpec, TooLarge, UnsupportedMediaType
from app.validation_pointers import FieldError

FILE_FIELD = "file"
MAX_FIELDS = 20
MAX_FIELD_BYTES = 64 << 10
MAX_HEADER_BYTES = 32 << 10
FLUSH_BYTES = 1 << 20
FILENAME_LENGTH = 255


class Sink(Protocol):
    """Where the file's bytes go."""

    async def write(self, piece: bytes) -> None:
        """Takes the next bytes."""


@dataclass
class Form:
    """What the parts said; the file itself went to the sink."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    """None if there was no file."""


@dataclass
class _Part:
    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)


class _PartCollector:
    """The parser's callbacks: sorts bytes into fields and the file's next piece."""

    def __init__(self) -> None:
        self.form = Form()
        self.pending = bytearray()
        self.ended = False
        self._part = _Part()
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[str, str] = {}

    def on_part_begin(self) -> None:
        self._part = _Part()
        self._headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def on_headers_finished(self) -> None:
        disposition, options = _disposition(self._headers.get("content-disposition", ""))
        if disposition != "form-data" or "name" not in options:
            raise InvalidRequest("A part has no form-data name.", reason="multipart_invalid")
        self._part = _Part(options["name"], options.get("filename"))
        if self._part.name == FILE_FIELD:
            if self.form.filename is not None:
                raise InvalidRequest("There is more than one part named file.", reason="multipart_invalid")
            self.form.filename = safe_filename(self._part.filename or "")
        elif self._part.name in self.form.fields or len(self.form.fields) >= MAX_FIELDS:
            raise InvalidRequest("A field is given twice, or there are too many.", reason="multipart_invalid")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == FILE_FIELD:
            self.pending += data[start:end]
            return
        self._part.data += data[start:end]
        if len(self._part.data) > MAX_FIELD_BYTES:
            raise TooLarge(f"A field is larger than {MAX_FIELD_BYTES} bytes.", reason="field_too_large")

    def on_part_end(self) -> None:
        if self._part.name == FILE_FIELD:
            return
        try:
            self.form.fields[self._part.name] = self._part.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest("A field is not UTF-8.", reason="multipart_invalid") from error

    def on_end(self) -> None:
        self.ended = True


async def parse_multipart(content_type: str, chunks: AsyncIterator[bytes], sink: Sink) -> Form:
    """Reads a multipart body.

    Args:
        content_type: The request's header, with the boundary.
        chunks: The body.
        sink: Takes the bytes of the part named ``file``, about a mebibyte at a time.

    Raises:
        UnsupportedMediaType: It is not multipart.
        InvalidRequest: It is malformed, or ends too early.
        TooLarge: A field is too large, or whatever the sink raises for the file.
    """
    collector = _PartCollector()
    parser = _parser(_boundary(content_type), collector)
    async for chunk in chunks:
        try:
            parser.write(chunk)
        except FormParserError as error:
            raise InvalidRequest("The multipart body is malformed.", reason="multipart_invalid") from error
        if len(collector.pending) >= FLUSH_BYTES:
            await sink.write(bytes(collector.pending))
            collector.pending.clear()
    if not collector.ended:
        raise InvalidRequest("The body ends before its last boundary.", reason="incomplete_body")
    if collector.pending:
        await sink.write(bytes(collector.pending))
    return collector.form


def require_file(form: Form) -> str:
    """The file's name.

    Raises:
        InvalidSpec: There was no part named ``file``.
    """
    if form.filename is None:
        errors = [FieldError(pointer="/file", detail="Field required")]
        raise InvalidSpec("The request has fields that are not valid.", errors=errors)
    return form.filename


def safe_filename(given: str) -> str:
    """The last part of a client's file name, without what could hide or redirect; it is shown, never opened."""
    name = given.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(character for character in name if character.isprintable()).strip(". ")
    return name[:FILENAME_LENGTH]


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UnsupportedMediaType("Send multipart/form-data with a boundary.")
    if len(boundary) > 70:
        raise InvalidRequest("The boundary is longer than 70 characters.", reason="multipart_invalid")
    return boundary


def _disposition(header: str) -> tuple[str, dict[str, str]]:
    kind, options = parse_options_header(header.encode("utf-8").decode("latin-1"))
    return kind.decode("latin-1"), {
        name.decode("latin-1"): value.decode("utf-8", "replace") for name, value in options.items()
    }


def _parser(boundary: bytes, collector: _PartCollector) -> MultipartParser:
    return MultipartParser(
        boundary,
        {
            "on_part_begin": collector.on_part_begin,
            "on_part_data": collector.on_part_data,
            "on_part_end": collector.on_part_end,
            "on_header_field": collector.on_header_field,
            "on_header_value": collector.on_header_value,
            "on_header_end": collector.on_header_end,
            "on_headers_finished": collector.on_headers_finished,
            "on_end": collector.on_end,
        },
        max_header_size=MAX_HEADER_BYTES,
    )
