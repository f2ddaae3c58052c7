"""``Idempotency-Key``: a repeated POST does nothing twice and gets the first one's response.

The first request with a key takes it in SQL, then runs. Others with the same key read their own body to the end (only
hashing it), wait for the first one to finish, compare fingerprints, and answer from what was kept. What came to
nothing — a server error, a refusal that another try may not meet — frees the key.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db import utc_now
from app.dependencies import Services, authenticate_request
from app.error_handlers import send_problem
from app.errors import IdempotencyKeyReused, InvalidRequest, Problem, RequestInProgress
from app.idempotency import repository
from app.idempotency.fingerprints import UPLOAD_FINGERPRINT_KEY, body_fingerprint, request_fingerprint
from app.idempotency.records import IdempotencyRecord
from app.keys.service import Principal
from app.request_bodies import is_upload, read_body, replayed
from app.uploads import fingerprint_upload

KEPT_HEADERS = ("content-type", "location", "etag", "cache-control")
KEPT_BODY_BYTES = 1 << 20
HEARTBEAT_SECONDS = 15.0
ABANDONED_SECONDS = 60.0
POLL_SECONDS = 0.1
POLLS = 300
NOT_KEPT = frozenset({401, 403, 408, 429})

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class _Claim:
    """A key in the project of whoever presented it."""

    services: Services
    principal: Principal
    key: str

    @property
    def project_id(self) -> str:
        """The project that the key is remembered in."""
        return self.principal.project_id


class Idempotency:
    """The middleware.

    Args:
        app: What is wrapped.
        upload_paths: Paths whose multipart bodies are streamed by the endpoint and fingerprinted there.
    """

    def __init__(self, app: ASGIApp, upload_paths: frozenset[str]) -> None:
        self._app = app
        self._upload_paths = upload_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        key = Headers(scope=scope).get("idempotency-key") if scope["type"] == "http" else None
        if key is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            claim = await _claim(scope, key)
            first = await claim.services.in_transaction(
                lambda session: repository.claim(
                    session,
                    claim.project_id,
                    claim.key,
                    claim.services.settings.idempotency_seconds,
                    ABANDONED_SECONDS,
                )
            )
            if not first:
                await (await self._repeat(claim, scope, receive))(scope, receive, send)
                return
        except Problem as problem:
            await send_problem(scope, receive, send, problem)
            return
        async with _heartbeat(claim):
            await self._run_first(claim, scope, receive, send)

    async def _run_first(self, claim: _Claim, scope: Scope, receive: Receive, send: Send) -> None:
        recorder = _Recorder(send)
        fingerprint: str | None = None
        try:
            if not is_upload(scope, self._upload_paths):
                settings = claim.services.settings
                body = await read_body(receive, settings.max_body_bytes, settings.upload_idle_seconds)
                fingerprint, receive = body_fingerprint(body), replayed(body, receive)
            await self._app(scope, receive, recorder.send)
            fingerprint = fingerprint or scope.get(UPLOAD_FINGERPRINT_KEY)
        finally:
            # Even when the client is gone: its next try has to find the key answered or free.
            await asyncio.shield(_settle(claim, scope, recorder, fingerprint))

    async def _repeat(self, claim: _Claim, scope: Scope, receive: Receive) -> Response:
        settings = claim.services.settings
        if is_upload(scope, self._upload_paths):
            body = await fingerprint_upload(scope, receive, settings)
        else:
            body = body_fingerprint(await read_body(receive, settings.max_body_bytes, settings.upload_idle_seconds))
        kept = await _finished(claim)
        if kept.fingerprint != request_fingerprint(scope, claim.principal.key_id, body):
            raise IdempotencyKeyReused("The key was used before with another request.")
        headers = {**kept.headers, "Idempotent-Replayed": "true"}
        return Response(kept.body, kept.status or 200, headers=headers)


async def _claim(scope: Scope, key: str) -> _Claim:
    if not _KEY.fullmatch(key):
        detail = "Idempotency-Key is 1 to 255 printable ASCII characters without spaces."
        raise InvalidRequest(detail, reason="idempotency_key_invalid")
    services: Services = scope["app"].state.services
    principal = await authenticate_request(Request(scope), services)
    return _Claim(services, principal, key)


async def _finished(claim: _Claim) -> IdempotencyRecord:
    for _ in range(POLLS):
        found = await claim.services.reading(lambda session: repository.find(session, claim.project_id, claim.key))
        if found is None:
            break
        if found.status is not None:
            return found
        await asyncio.sleep(POLL_SECONDS)
    raise RequestInProgress


async def _settle(claim: _Claim, scope: Scope, recorder: "_Recorder", fingerprint: str | None) -> None:
    if fingerprint is None or not recorder.keepable:
        await claim.services.in_transaction(lambda session: repository.forget(session, claim.project_id, claim.key))
        return
    body = scope.get("state", {}).get("idempotent_body") or recorder.body.decode("utf-8")
    await claim.services.in_transaction(
        lambda session: repository.complete(
            session,
            claim.project_id,
            claim.key,
            fingerprint=request_fingerprint(scope, claim.principal.key_id, fingerprint),
            status=recorder.status,
            headers=recorder.headers,
            body=body,
        )
    )


@contextlib.asynccontextmanager
async def _heartbeat(claim: _Claim) -> AsyncIterator[None]:
    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await claim.services.in_transaction(
                lambda session: repository.touch(session, claim.project_id, claim.key, utc_now())
            )

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


class _Recorder:
    """Passes a response on and remembers it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self._complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = Headers(raw=message["headers"])
            self.headers = {name: given[name] for name in KEPT_HEADERS if name in given}
        elif message["type"] == "http.response.body":
            if len(self.body) <= KEPT_BODY_BYTES:
                self.body += message.get("body", b"")
            self._complete = not message.get("more_body", False)
        await self._send(message)

    @property
    def keepable(self) -> bool:
        """Whether the same request would meet the same answer."""
        small = len(self.body) <= KEPT_BODY_BYTES
        return self._complete and small and 200 <= self.status < 500 and self.status not in NOT_KEPT
