"""Every error of the application as a problem+json response."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.errors import InvalidRequest, InvalidSpec, Problem, Unavailable, problem_from
from app.problems import CODE_BY_STATUS, PROBLEM_JSON, make_body
from app.validation_pointers import field_errors
from workers.compression.specs.errors import Code, EngineError

logger = logging.getLogger(__name__)

REQUEST_ID_KEY = "pressroom.request_id"
"""Where the request's scope keeps the id that the response's ``X-Request-Id`` carries."""

DETAILS = {404: "There is nothing at this path.", 405: "This path does not take this method."}


def problem_response(scope: Scope, problem: Problem) -> JSONResponse:
    """The problem as a response."""
    body = problem.body(scope.get(REQUEST_ID_KEY)).payload()
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=PROBLEM_JSON)


async def send_problem(scope: Scope, receive: Receive, send: Send, problem: Problem) -> None:
    """Sends the problem from a middleware, where no handler catches it."""
    await problem_response(scope, problem)(scope, receive, send)


def _on_problem(request: Request, error: Problem) -> JSONResponse:
    return problem_response(request.scope, error)


def _on_engine_error(request: Request, error: EngineError) -> JSONResponse:
    return problem_response(request.scope, problem_from(error))


def _on_validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    found = error.errors()
    if any(item.get("type") == "json_invalid" for item in found):
        return problem_response(request.scope, InvalidRequest("The body is not valid JSON.", reason="json_invalid"))
    problem = InvalidSpec("The request has fields that are not valid.", errors=field_errors(found, error.body))
    return problem_response(request.scope, problem)


def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    status = error.status_code
    code = CODE_BY_STATUS.get(
        status, Code.INVALID_REQUEST if status < HTTPStatus.INTERNAL_SERVER_ERROR else Code.INTERNAL
    )
    detail = DETAILS.get(status, HTTPStatus(status).phrase + ".")
    body = make_body(code, detail, status=status, request_id=request.scope.get(REQUEST_ID_KEY)).payload()
    return JSONResponse(body, status, headers=error.headers, media_type=PROBLEM_JSON)


def _on_unstorable_value(request: Request, error: DataError) -> JSONResponse:
    logger.info("value the database cannot hold: %s", error.orig)
    return problem_response(request.scope, InvalidSpec("The request has a value that cannot be stored."))


def _on_database_error(request: Request, error: DBAPIError) -> JSONResponse:
    logger.error("database error", exc_info=error)
    return problem_response(request.scope, Unavailable("The database does not answer.", reason="database"))


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem; what no handler knows is left to ``RequestScope``."""
    app.exception_handler(Problem)(_on_problem)
    app.exception_handler(EngineError)(_on_engine_error)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.exception_handler(DataError)(_on_unstorable_value)
    app.exception_handler(DBAPIError)(_on_database_error)
