"""The tree of refusals.

    Problem
    ├── Unauthorized · Forbidden · NotFound · NotAcceptable
    ├── Conflict
    │   └── InUse · JobFinished · JobNotFinished · IdempotencyKeyReused · RequestInProgress
    ├── InvalidRequest · InvalidSpec · DigestMismatch · RequestTimeout
    ├── TooLarge · UnsupportedMediaType · RangeNotSatisfiable
    └── RateLimited · Unavailable

What the engine and the format checks raise (``EngineError``) becomes a plain ``Problem`` by ``problem_from``; the
error of a failed job is made by ``failure_body``. ``app.error_handlers`` turns all of them into responses.
"""

from collections.abc import Iterable, Mapping

from app.problems import STATUS_BY_CODE, ProblemBody, failure_body, make_body, problem_responses
from app.validation_pointers import FieldError
from workers.compression.specs.errors import Code, EngineError

__all__ = [
    "STATUS_BY_CODE",
    "Conflict",
    "DigestMismatch",
    "Forbidden",
    "IdempotencyKeyReused",
    "InUse",
    "InvalidRequest",
    "InvalidSpec",
    "JobFinished",
    "JobNotFinished",
    "NotAcceptable",
    "NotFound",
    "Problem",
    "RangeNotSatisfiable",
    "RateLimited",
    "RequestInProgress",
    "RequestTimeout",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnsupportedMediaType",
    "failure_body",
    "problem_from",
    "problem_responses",
]


class Problem(Exception):
    """A refusal on its way to the client.

    Args:
        detail: What is wrong, for the user; never a path of this machine.
        reason: Finer machine word.
        hint: What to try next.
        errors: The request's fields to blame.
        headers: Extra response headers.
        code: Only where no subclass exists; otherwise the class says it.
    """

    code: Code = Code.INTERNAL
    retryable: bool | None = None
    """Whether the same request can succeed later; None where the status tells."""

    def __init__(
        self,
        detail: str,
        *,
        reason: str | None = None,
        hint: str | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        code: Code | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code or self.code
        self.detail = detail
        self.reason = reason
        self.hint = hint
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return STATUS_BY_CODE[self.code]

    def body(self, request_id: str | None = None) -> ProblemBody:
        """The problem as it is sent."""
        return make_body(
            self.code,
            self.detail,
            reason=self.reason,
            hint=self.hint,
            errors=self.errors or None,
            request_id=request_id,
            **({} if self.retryable is None else {"retryable": self.retryable}),
        )


class Unauthorized(Problem):
    """No key, or none that opens anything; every cause gives the same answer."""

    code = Code.UNAUTHORIZED

    def __init__(self) -> None:
        super().__init__("A valid API key is required.", headers={"WWW-Authenticate": 'Bearer realm="pressroom"'})


class Forbidden(Problem):
    """The key is good but may not do this."""

    code = Code.FORBIDDEN


class NotFound(Problem):
    """No such object in this project."""

    code = Code.NOT_FOUND


class NotAcceptable(Problem):
    """None of the media types asked for can be made."""

    code = Code.NOT_ACCEPTABLE


class Conflict(Problem):
    """The object's state does not allow this."""

    code = Code.CONFLICT


class InUse(Conflict):
    """A job that has not ended uses the object."""

    code = Code.IN_USE


class JobFinished(Conflict):
    """The job is in a terminal state."""

    code = Code.JOB_FINISHED


class JobNotFinished(Conflict):
    """The job is not yet in a terminal state."""

    code = Code.JOB_NOT_FINISHED


class IdempotencyKeyReused(Conflict):
    """The key came before with another request."""

    code = Code.IDEMPOTENCY_KEY_REUSED


class RequestInProgress(Conflict):
    """The first request with this idempotency key has not ended yet."""

    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "The first request with this idempotency key has not ended; try again.",
            reason="request_in_progress",
            headers={"Retry-After": "1"},
        )


class InvalidRequest(Problem):
    """The request is not well-formed HTTP or JSON."""

    code = Code.INVALID_REQUEST


class InvalidSpec(Problem):
    """The request is well-formed but asks for something that makes no sense."""

    code = Code.INVALID_SPEC


class DigestMismatch(Problem):
    """The bytes that arrived are not those that the client announced."""

    code = Code.DIGEST_MISMATCH


class RequestTimeout(Problem):
    """The client stopped sending."""

    code = Code.REQUEST_TIMEOUT


class TooLarge(Problem):
    """The body is over a limit."""

    code = Code.TOO_LARGE


class UnsupportedMediaType(Problem):
    """The body's type or encoding is not one that is read here."""

    code = Code.UNSUPPORTED_MEDIA_TYPE


class RangeNotSatisfiable(Problem):
    """The range lies outside the content."""

    code = Code.RANGE_NOT_SATISFIABLE


class RateLimited(Problem):
    """Too much at once; ``Retry-After`` says when to come back."""

    code = Code.RATE_LIMITED

    def __init__(self, detail: str, *, limit: int, retry_after_seconds: int = 5, reason: str | None = None) -> None:
        headers = {
            "Retry-After": str(retry_after_seconds),
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(retry_after_seconds),
        }
        super().__init__(detail, reason=reason, headers=headers)


class Unavailable(Problem):
    """A part the service needs does not answer at the moment."""

    code = Code.UNAVAILABLE


def problem_from(error: EngineError) -> Problem:
    """The HTTP face of a refusal by the engine's contract or the format checks."""
    errors = [FieldError(pointer=error.pointer, detail=error.detail)] if error.pointer else []
    return Problem(error.detail, reason=error.reason, hint=error.hint, errors=errors, code=error.code)
