"""Requests generated from the served OpenAPI document, good and bad, get documented answers and never a 5xx."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.keyed import Projects

pytestmark = pytest.mark.e2e

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
QUICK, THOROUGH = 15, 300
"""Requests per operation."""


@pytest.fixture(scope="module")
def schema(projects: Projects) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{projects.service.url}/openapi.json")


def failures(
    schema: BaseSchema, projects: Projects, mode: GenerationMode, examples: int, ids: dict[str, str] | None
) -> list[str]:
    """Sends requests to every operation; what went wrong, one text per operation."""
    found = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if ids is not None and ("{" not in operation.path or operation.method == "delete"):
            continue
        try:
            exercise(operation, projects.keys["writer"], mode, examples, ids)
        except Unsatisfiable:
            continue  # an operation without parameters cannot be asked wrongly
        except FailureGroup as failure:
            texts = [str(part) for part in failure.exceptions]
            found.append(f"{operation.label}: {' | '.join(texts)}"[:1500])
    return found


def exercise(
    operation: APIOperation,
    key: str,
    mode: GenerationMode,
    examples: int,
    ids: dict[str, str] | None,
) -> None:
    parameters = {name: value for name, value in (ids or {}).items() if f"{{{name}}}" in operation.path}
    strategy = operation.as_strategy(mode, path_parameters=parameters or None)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: Any) -> None:
        case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, checks=CHECKS, timeout=60)

    send()


@pytest.mark.parametrize("examples", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.long)])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_documented_answers(
    mode: GenerationMode, examples: int, schema: BaseSchema, projects: Projects
) -> None:
    assert failures(schema, projects, mode, examples, None) == []


@pytest.mark.parametrize("examples", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.long)])
def test_generated_requests_on_real_objects_get_documented_answers(
    examples: int, schema: BaseSchema, projects: Projects
) -> None:
    assert failures(schema, projects, GenerationMode.POSITIVE, examples, projects.ids) == []


def test_every_operation_is_described_with_its_errors(projects: Projects) -> None:
    document = httpx.get(f"{projects.service.url}/openapi.json").json()

    assert document["openapi"].startswith("3.1")
    for method, path in projects.operations:
        operation = document["paths"][path][method.lower()]
        assert operation.get("summary"), (method, path)
        if path.startswith("/v1/") and path != "/v1/version":
            assert "401" in operation["responses"], (method, path)
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and path.startswith("/v1/"):
                assert "application/problem+json" in response["content"], (method, path, status)
