"""The served OpenAPI document: what FastAPI generates, with the errors and headers that every operation shares."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.problems import PROBLEM_JSON, ProblemBody, problem_responses
from workers.compression.specs.errors import Code

DESCRIPTION = """
Makes trained models smaller, faster and cheaper, and proves it on the very artifacts it returns.

Upload a model and data, submit a job with a recipe, watch its events, read the measured report, fetch the artifact.
Errors are `application/problem+json` (RFC 9457) with a stable `code`. Lists are pages with a cursor.
""".strip()

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/v1/version"})
NEED_NO_KEY = frozenset({"/v1/jobs/validate", "/v1/jobs/estimate"})

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Makes a repeated request with the same body return the first one's response, for 24 hours.",
}
REQUEST_ID_HEADER = {"X-Request-Id": {"schema": {"type": "string"}, "description": "The id of this request."}}


def describe(app: FastAPI) -> None:
    """Makes ``app.openapi`` return the completed document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = complete(document)
        return app.openapi_schema

    # FastAPI documents this assignment as the way to change the document.
    app.openapi = openapi  # type: ignore[method-assign]


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Adds what all operations have in common to a generated document."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {})
    schemas["ProblemBody"] = problem
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete_operation(path, method, operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


def _complete_operation(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "422" in responses and PROBLEM_JSON not in responses["422"].get("content", {}):
        del responses["422"]
        _add(responses, Code.INVALID_SPEC)
    if path not in OPEN_PATHS:
        _add(responses, Code.UNAUTHORIZED, Code.FORBIDDEN, Code.INTERNAL, Code.UNAVAILABLE)
    if method in {"post", "patch", "put"}:
        _add(responses, Code.INVALID_REQUEST, Code.TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE)
    if method == "post" and path not in NEED_NO_KEY:
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
        _add(responses, Code.IDEMPOTENCY_KEY_REUSED)
    for response in responses.values():
        response.setdefault("headers", {}).update(REQUEST_ID_HEADER)


def _add(responses: dict[str, Any], *codes: Code) -> None:
    for status, response in problem_responses(*codes).items():
        known = responses.setdefault(str(status), response)
        examples = known.get("content", {}).get(PROBLEM_JSON, {}).get("examples")
        if examples is not None:
            examples.update(response["content"][PROBLEM_JSON]["examples"])
