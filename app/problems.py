"""What an error looks like on the wire: RFC 9457 problem+json with the project's own members."""

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.validation_pointers import FieldError
from workers.compression.specs.errors import Code
from workers.compression.specs.messages import Failure

PROBLEM_JSON = "application/problem+json"

STATUS_BY_CODE: dict[Code, int] = {
    Code.INVALID_REQUEST: 400,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.NOT_ACCEPTABLE: 406,
    Code.REQUEST_TIMEOUT: 408,
    Code.CONFLICT: 409,
    Code.JOB_FINISHED: 409,
    Code.JOB_NOT_FINISHED: 409,
    Code.IN_USE: 409,
    Code.IDEMPOTENCY_KEY_REUSED: 409,
    Code.TOO_LARGE: 413,
    Code.UNSUPPORTED_FORMAT: 415,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.RANGE_NOT_SATISFIABLE: 416,
    Code.INVALID_SPEC: 422,
    Code.DIGEST_MISMATCH: 422,
    Code.UNSAFE_MODEL: 422,
    Code.INVALID_MODEL: 422,
    Code.INVALID_DATASET: 422,
    Code.DATASET_MISMATCH: 422,
    Code.UNSUPPORTED_TECHNIQUE: 422,
    Code.UNSUPPORTED_OPERATOR: 422,
    Code.INCOMPATIBLE_STEPS: 422,
    Code.NOTHING_COMPRESSED: 422,
    Code.CONSTRAINT_INFEASIBLE: 422,
    Code.OUT_OF_MEMORY: 422,
    Code.OUT_OF_DISK: 422,
    Code.TIMEOUT: 422,
    Code.CRASHED: 422,
    Code.SANDBOX_VIOLATION: 422,
    Code.NUMERICAL_FAILURE: 422,
    Code.RATE_LIMITED: 429,
    Code.INTERNAL: 500,
    Code.INVALID_RESULT: 500,
    Code.WORKER_LOST: 503,
    Code.UNAVAILABLE: 503,
    Code.STORAGE_UNAVAILABLE: 503,
}

CODE_BY_STATUS: dict[int, Code] = {
    400: Code.INVALID_REQUEST,
    401: Code.UNAUTHORIZED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    406: Code.NOT_ACCEPTABLE,
    408: Code.REQUEST_TIMEOUT,
    409: Code.CONFLICT,
    413: Code.TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
    416: Code.RANGE_NOT_SATISFIABLE,
    422: Code.INVALID_SPEC,
    429: Code.RATE_LIMITED,
    503: Code.UNAVAILABLE,
}


class ProblemBody(BaseModel):
    """An error as it is sent: RFC 9457 with the project's own members."""

    type: str = Field(examples=["urn:pressroom:problem:not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no model mdl_01JZ0000000000000000000000."])
    code: Code
    reason: str | None = Field(None, description="A finer word than the code, where there is one.")
    owner: Literal["caller", "service"] = Field(description="Who can do something about it.")
    retryable: bool = Field(description="Whether the same request can succeed later.")
    hint: str | None = Field(None, description="What to try next.")
    step: str | None = Field(None, description="For a failed job: the step it failed in.")
    errors: list[FieldError] | None = Field(None, description="The fields to blame.")
    request_id: str | None = None

    def payload(self) -> dict[str, Any]:
        """The JSON object, members that do not apply left out."""
        return self.model_dump(mode="json", exclude_none=True)


def make_body(code: Code, detail: str, **members: Any) -> ProblemBody:
    """A body with everything that follows from the code filled in."""
    status = members.pop("status", STATUS_BY_CODE[code])
    members.setdefault("retryable", status in {408, 429, 503})
    return ProblemBody(
        type=f"urn:pressroom:problem:{code.value}",
        title=code.value.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        code=code,
        owner="service" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "caller",
        **members,
    )


def failure_body(failure: Failure) -> dict[str, Any]:
    """The ``error`` of a failed job or a rejected upload: the same object as a problem, plus ``step``."""
    members = failure.model_dump(include={"reason", "hint", "step", "retryable"})
    return make_body(failure.code, failure.detail, **members).payload()


def problem_responses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route: the named refusals, grouped by status, each with an example."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status = STATUS_BY_CODE[code]
        example = make_body(code, code.value.replace("_", " ").capitalize() + ".").payload()
        entry = by_status.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {
                    PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemBody"}, "examples": {}},
                },
            },
        )
        entry["content"][PROBLEM_JSON]["examples"][code.value] = {"value": example}
    return by_status
