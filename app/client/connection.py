"""One HTTP connection pool that retries what is safe to retry."""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from app.client.errors import ConnectionFailed, problem_from

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
CONNECT_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 10.0
# The largest Prefer: wait the service accepts, and some seconds for its answer to arrive.
READ_SECONDS = 60.0 + 15.0

# Builds the changing part of a request anew for each attempt: a half-sent file must be read from its start again.
BodyFactory = Callable[[], dict[str, Any]]


class Connection:
    """Sends requests to one service.

    A GET is repeated freely. Every POST carries an ``Idempotency-Key`` that stays the same over its repetitions, so
    the service answers a repeated one with the first result instead of doing the work twice.

    Args:
        base_url: Where the service is, without ``/v1``.
        api_key: Sent as a bearer token.
        retries: Repetitions after a failed attempt.
        transport: An ``httpx`` transport, for tests and proxies.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.retries = retries
        self._http = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
        )

    @property
    def base_url(self) -> str:
        """The service's address."""
        return str(self._http.base_url).rstrip("/")

    def close(self) -> None:
        """Closes the pool."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        body: BodyFactory = dict,
        retry: bool = True,
    ) -> httpx.Response:
        """The successful response; raises the problem, or ``ConnectionFailed``, once retrying makes no sense."""
        sent = dict(headers or {})
        if method == "POST":
            sent.setdefault("Idempotency-Key", idempotency_key or uuid.uuid4().hex)
        attempt = 0
        while True:
            last = not retry or attempt == self.retries
            response = None
            try:
                response = self._http.request(method, path, params=params, headers=sent, **body())
            except httpx.TransportError as failure:
                if last:
                    raise self._unreachable(failure) from failure
            if response is not None:
                if response.is_success:
                    return response
                if last or response.status_code not in RETRIED_STATUSES:
                    raise problem_from(response)
            time.sleep(backoff_seconds(attempt, response))
            attempt += 1

    def get(self, path: str, **options: Any) -> Any:
        """The parsed JSON body of a GET."""
        return self.request("GET", path, **options).json()

    def post(self, path: str, content: Any = None, *, idempotency_key: str | None = None) -> Any:
        """The parsed JSON body of a POST whose body is JSON."""
        body = {} if content is None else {"json": content}
        return self.request("POST", path, idempotency_key=idempotency_key, body=lambda: body).json()

    @contextmanager
    def stream(self, path: str, *, headers: Mapping[str, str], read_seconds: float) -> Iterator[httpx.Response]:
        """A GET whose body is read piece by piece; transport errors are the caller's, who knows how to resume."""
        timeout = httpx.Timeout(read_seconds, connect=CONNECT_SECONDS)
        with self._http.stream("GET", path, headers=dict(headers), timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise problem_from(response)
            yield response

    def _unreachable(self, failure: httpx.TransportError) -> ConnectionFailed:
        return ConnectionFailed(f"no answer from {self.base_url}: {failure or type(failure).__name__}")


def backoff_seconds(attempt: int, response: httpx.Response | None = None) -> float:
    """How long to wait before the next attempt: what the service asked for, else exponential with jitter."""
    asked = response.headers.get("retry-after", "") if response is not None else ""
    if asked.isdigit():
        return min(float(asked), LONGEST_RETRY_SECONDS)
    # Jitter spreads clients that failed together; it guards nothing, so the plain generator is fine.
    return float(min(0.2 * 2**attempt, LONGEST_RETRY_SECONDS) * random.uniform(0.5, 1.0))  # noqa: S311
