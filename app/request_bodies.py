"""Bodies of requests: read with a limit in size and in patience, and read again."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import send_problem
from app.errors import InvalidRequest, Problem, RequestTimeout, TooLarge, UnsupportedMediaType

GRACE_SECONDS = 60.0
MINIMUM_RATE = 1024


async def patient_chunks(receive: Receive, idle_seconds: float) -> AsyncIterator[bytes]:
    """The body's chunks as they come.

    Raises:
        RequestTimeout: Nothing came for ``idle_seconds``, or hardly anything over a longer time.
        ClientDisconnect: The client went away.
    """
    clock = asyncio.get_running_loop().time
    started = clock()
    received = 0
    more = True
    while more:
        message = await _next_message(receive, idle_seconds)
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        received += len(chunk)
        if more and clock() - started > GRACE_SECONDS + received / MINIMUM_RATE:
            raise RequestTimeout("The body comes too slowly.", reason="too_slow")
        yield chunk


async def _next_message(receive: Receive, idle_seconds: float) -> Message:
    try:
        async with asyncio.timeout(idle_seconds):
            message = await receive()
    except TimeoutError as error:
        raise RequestTimeout(f"Nothing came for {idle_seconds:g} seconds.", reason="idle") from error
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


async def read_body(receive: Receive, limit: int, idle_seconds: float) -> bytes:
    """The whole body, which has to fit the limit."""
    body = bytearray()
    async for chunk in patient_chunks(receive, idle_seconds):
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is larger than {limit} bytes.", reason="body_too_large")
    return bytes(body)


def announced_length(scope: Scope) -> int | None:
    """The request's ``Content-Length``."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            if not value.isdigit():
                raise InvalidRequest("Content-Length is no number.", reason="content_length")
            return int(value)
    return None


def replayed(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body once more, then whatever comes after it."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


class BodyLimit:
    """Reads every body that is not an upload before the application sees it, so that none is read without a limit.

    Args:
        app: What is wrapped.
        limit: Largest body in bytes.
        idle_seconds: How long to wait for the next piece.
        upload_paths: Paths whose multipart bodies are streamed by the endpoint itself.
    """

    def __init__(self, app: ASGIApp, limit: int, idle_seconds: float, upload_paths: frozenset[str]) -> None:
        self._app = app
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._upload_paths = upload_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or is_upload(scope, self._upload_paths):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except Problem as problem:
            await send_problem(scope, receive, send, problem)
            return
        await self._app(scope, replayed(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        _refuse_encoding(scope)
        length = announced_length(scope)
        if length is not None and length > self._limit:
            raise TooLarge(f"The body is larger than {self._limit} bytes.", reason="body_too_large")
        body = await read_body(receive, self._limit, self._idle_seconds)
        if length is not None and length != len(body):
            raise InvalidRequest("The body is not as long as Content-Length says.", reason="content_length")
        return body


def _refuse_encoding(scope: Scope) -> None:
    """A compressed body could unfold into any size."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise UnsupportedMediaType("Bodies with a Content-Encoding are not read.", reason="content_encoding")


def is_upload(scope: Scope, upload_paths: frozenset[str]) -> bool:
    """Whether the request is one whose body the endpoint streams to disk."""
    if scope["method"] != "POST" or scope["path"] not in upload_paths:
        return False
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return bytes(content_type).lower().startswith(b"multipart/form-data")
