"""What the client raises.

ClientError
├── ConnectionFailed    no service answered, or it went away for good
├── DigestMismatch      a download's bytes are not the ones announced
├── JobUnsuccessful     a job that was waited for failed or was cancelled
├── WaitTimeout         a wait ended before its object was done
└── Problem             the service refused, with the RFC 9457 document it sent
    ├── Unauthorized · Forbidden · NotFound · Conflict
    ├── Refused         413, 415, 422: the content of the request
    ├── RateLimited
    └── ServiceFailed   5xx
"""

from dataclasses import dataclass
from typing import Any

import httpx


class ClientError(Exception):
    """Root of everything the client raises."""


class ConnectionFailed(ClientError):
    """No service answered, or it went away and did not come back within the retries."""


class DigestMismatch(ClientError):
    """A download's SHA-256 is not the one the service announced."""


class WaitTimeout(ClientError):
    """What was waited for is not done yet; it goes on without the client."""


class JobUnsuccessful(ClientError):
    """A job ended as failed or cancelled.

    Args:
        job_id: Which job.
        status: ``failed`` or ``cancelled``.
        error: The job's error object, where it has one.
    """

    def __init__(self, job_id: str, status: str, error: dict[str, Any] | None) -> None:
        self.job_id = job_id
        self.status = status
        self.error = error or {}
        detail = self.error.get("detail") or "no further detail"
        super().__init__(f"{job_id} {status}: {self.error.get('code', status)}: {detail}")


@dataclass(frozen=True)
class FieldError:
    """One field of a request and what is wrong with it."""

    pointer: str
    detail: str


class Problem(ClientError):
    """The service answered with a problem document.

    Args:
        status: HTTP status.
        document: The problem; its members are kept in ``document``, the usual ones are attributes as well.
    """

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.status = status
        self.document = document
        self.code = str(document.get("code") or f"http_{status}")
        self.detail = str(document.get("detail") or document.get("title") or f"HTTP {status}")
        self.reason: str | None = document.get("reason")
        self.hint: str | None = document.get("hint")
        self.request_id: str | None = document.get("request_id")
        self.retryable = bool(document.get("retryable", False))
        self.errors = tuple(
            FieldError(str(entry.get("pointer", "")), str(entry.get("detail", "")))
            for entry in document.get("errors") or ()
        )
        super().__init__(f"{self.code}: {self.detail}")


class Unauthorized(Problem):
    """401: no key, or a wrong one."""


class Forbidden(Problem):
    """403: the key lacks the scope."""


class NotFound(Problem):
    """404: no such object in this project."""


class Conflict(Problem):
    """409: the object's state does not allow it, or an idempotency key was used twice."""


class Refused(Problem):
    """413, 415, 422: what was sent is too large, of a refused format, unsafe or invalid."""


class RateLimited(Problem):
    """429: too many requests or queued jobs."""


class ServiceFailed(Problem):
    """5xx: the fault is the service's."""


_BY_STATUS: dict[int, type[Problem]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: Refused,
    415: Refused,
    422: Refused,
    429: RateLimited,
}


def problem_from(response: httpx.Response) -> Problem:
    """The exception for an error response whose body has been read; copes with bodies that are no problem document."""
    document: Any = None
    if "json" in response.headers.get("content-type", ""):
        try:
            document = response.json()
        except ValueError:
            document = None
    if not isinstance(document, dict):
        document = {"detail": response.text.strip()[:500] or response.reason_phrase}
    fallback = ServiceFailed if response.status_code >= 500 else Problem
    return _BY_STATUS.get(response.status_code, fallback)(response.status_code, document)
