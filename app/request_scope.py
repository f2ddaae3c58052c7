"""What surrounds every request: its id, safe headers, its figures, and a last net under every exception."""

import logging
import re
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.error_handlers import REQUEST_ID_KEY, send_problem
from app.errors import Problem
from app.health.metrics import REQUEST_SECONDS, REQUESTS
from app.ids import new_id
from app.logs import current_request_id

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestScope:
    """The outermost layer of the application.

    It never lets an exception out: the client gets a problem without a trace, the trace goes to the log under the
    same request id.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope[REQUEST_ID_KEY] = request_id
        current_request_id.set(request_id)
        started = time.perf_counter()
        status = 0

        async def send_dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(message, request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_dressed)
        except ClientDisconnect:
            logger.info("%s %s: the client went away", scope["method"], scope["path"])
        except Exception:
            logger.exception("unhandled error")
            if status:
                raise
            detail = "Something went wrong here. It has been logged under the request id."
            await send_problem(scope, receive, send_dressed, Problem(detail))
        finally:
            _count(scope, status, time.perf_counter() - started)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return new_id("req")


def _dress(message: Message, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-Id"] = request_id
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)


def _count(scope: Scope, status: int, seconds: float) -> None:
    # The template, not the path: ids in labels would make a time series per object.
    route = getattr(scope.get("route"), "path", "unmatched")
    REQUESTS.labels(method=scope["method"], route=route, status=str(status or 499)).inc()
    REQUEST_SECONDS.labels(method=scope["method"], route=route).observe(seconds)
