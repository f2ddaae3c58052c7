"""Every error of the application as a problem+json response; a trace goes to the log alone."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from app.errors import InvalidRequest, InvalidSpec, Problem, Unavailable, problem_from
from app.problems import CODE_BY_STATUS, PROBLEM_JSON, make_body
from app.validation_pointers import field_errors
from workers.compression.specs.errors import Code, EngineError

logger = logging.getLogger(__name__)


def request_id_of(request: Request) -> str | None:
    """The id that the response's ``X-Request-Id`` carries."""
    found = request.scope.get("pressroom.request_id")
    return str(found) if found is not None else None


def problem_response(request: Request, problem: Problem) -> JSONResponse:
    """The problem as a response."""
    body = problem.body(request_id_of(request)).payload()
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=PROBLEM_JSON)


def _on_problem(request: Request, error: Exception) -> JSONResponse:
    return problem_response(request, error if isinstance(error, Problem) else Problem("Internal error."))


def _on_engine_error(request: Request, error: Exception) -> JSONResponse:
    return problem_response(request, problem_from(error) if isinstance(error, EngineError) else Problem("Internal."))


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    body = error.body if isinstance(error, RequestValidationError) else None
    if any(item.get("type") == "json_invalid" for item in found):
        return problem_response(request, InvalidRequest("The body is not valid JSON.", reason="json_invalid"))
    errors = field_errors(found, body)
    return problem_response(request, InvalidSpec("The request has fields that are not valid.", errors=errors))


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    code = CODE_BY_STATUS.get(status, Code.INVALID_REQUEST if status < 500 else Code.INTERNAL)
    detail = {404: "There is nothing at this path.", 405: "This path does not take this method."}
    phrase = HTTPStatus(status).phrase + "."
    body = make_body(code, detail.get(status, phrase), status=status, request_id=request_id_of(request)).payload()
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(body, status, headers=headers, media_type=PROBLEM_JSON)


def _on_database_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("database error", exc_info=error)
    return problem_response(request, Unavailable("The database does not answer.", reason="database"))


def _on_anything(request: Request, error: Exception) -> JSONResponse:
    logger.error("unhandled error", exc_info=error)
    return problem_response(request, Problem("Something went wrong here. It has been logged under the request id."))


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(EngineError, _on_engine_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(DBAPIError, _on_database_error)
    app.add_exception_handler(Exception, _on_anything)
