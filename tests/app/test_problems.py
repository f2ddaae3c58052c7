"""Every error is a problem that helps, and none tells about this machine."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.datasets.schemas import DATASET_READ_EXAMPLE, DatasetRead
from app.db import Database
from app.models.schemas import MODEL_READ_EXAMPLE, ModelRead
from app.problems import STATUS_BY_CODE
from app.validation_pointers import field_errors, json_pointer
from tests.builders import add_model, add_project
from workers.compression.specs.errors import Code

PROBLEM = "application/problem+json"


def check(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["owner"] == ("service" if status >= 500 else "caller")
    assert {"type", "title", "detail", "retryable"} <= body.keys()
    assert "Traceback" not in response.text
    assert "/" not in body["detail"]
    return body


def test_every_code_has_a_status() -> None:
    assert set(STATUS_BY_CODE) == set(Code)


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    check(await client.get("/nowhere"), 404, "not_found")
    check(await client.get("/v1/models/mdl_none"), 404, "not_found")
    check(await client.put("/v1/models"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_request"),
        (b"[" * 100_000 + b"]" * 100_000, 400, "invalid_request"),
        (b'{"seed": ' + b"9" * 100_000 + b"}", 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (b'"' + b"x" * (3 << 20) + b'"', 413, "too_large"),
        (b"[]", 422, "invalid_spec"),
        (b"null", 422, "invalid_spec"),
        (b'{"model": "\\ud800", "recipe": []}', 422, "invalid_spec"),
        (b'{"model": "m", "recipe": [{"technique": "prune", "sparsity": NaN}]}', 422, "invalid_spec"),
    ],
    ids=["open", "deep", "big number", "not utf-8", "3 MiB", "list", "null", "surrogate", "nan"],
)
async def test_bad_bodies(client: httpx.AsyncClient, body: bytes, status: int, code: str) -> None:
    response = await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    check(response, status, code)


async def test_fields_are_named_as_the_client_sent_them(client: httpx.AsyncClient) -> None:
    request = {
        "model": "mdl_1",
        "recipe": [{"technique": "quantize", "method": "static", "bits": 10**9, "colour": "red"}],
        "evaluation": {"batch_sizes": [0]},
    }
    body = check(await client.post("/v1/jobs", json=request), 422, "invalid_spec")
    pointers = {error["pointer"] for error in body["errors"]}
    assert pointers == {"/recipe/0/bits", "/recipe/0/colour", "/evaluation/batch_sizes/0"}


async def test_a_nul_is_refused_not_an_error_of_ours(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        model = add_model(session, add_project(session).id)
    response = await client.patch(f"/v1/models/{model.id}", json={"name": "a\0b"})
    check(response, 422, "invalid_spec")


async def test_an_unforeseen_error_is_a_problem_without_a_trace(client: httpx.AsyncClient, app: FastAPI) -> None:
    def fail() -> None:
        raise RuntimeError("/secret/path")

    app.add_api_route("/fails", fail)
    response = await client.get("/fails", headers={"X-Request-Id": "abc-1"})
    check(response, 500, "internal")
    assert response.headers["x-request-id"] == "abc-1"
    assert "secret" not in response.text


async def test_every_response_carries_an_id_and_safe_headers(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/nowhere", "/v1/models", "/"):
        response = await client.get(path, headers={"X-Request-Id": 'bad"id\x07'})
        assert response.headers["x-request-id"].startswith("req_")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"


def test_pointers_follow_the_rfc() -> None:
    assert json_pointer(("a/b", 0, "c~d")) == "/a~1b/0/c~0d"
    missing = [{"loc": ("body", "recipe", 0, "prune.magnitude", "sparsity"), "msg": "Field required"}]
    assert field_errors(missing, {"recipe": [{}]})[0].pointer == "/recipe/0/sparsity"
    whole = [{"type": "value_error", "loc": ("body", "recipe", 0, "prune.magnitude"), "msg": "give one, not both"}]
    assert field_errors(whole, {"recipe": [{}]})[0].pointer == "/recipe/0"
    assert field_errors([{"loc": ("body", "model"), "msg": "Field required"}], {})[0].pointer == "/model"


async def test_the_document_describes_errors_examples_and_keys(client: httpx.AsyncClient, app: FastAPI) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    assert PROBLEM in response["content"], (path, method, status)
            if path.startswith("/v1/") and path != "/v1/version":
                assert operation["security"], (path, method)
                assert "401" in operation["responses"]
            if method == "post" and path.rpartition("/")[2] not in {"validate", "estimate"}:
                assert any(p.get("name") == "Idempotency-Key" for p in operation["parameters"])
    assert "HTTPValidationError" not in json.dumps(document)
    assert "multipart/form-data" in document["paths"]["/v1/models"]["post"]["requestBody"]["content"]


def test_the_examples_of_the_document_are_valid() -> None:
    assert ModelRead.model_validate(MODEL_READ_EXAMPLE).status == "ready"
    assert DatasetRead.model_validate(DATASET_READ_EXAMPLE).rows == 1797
