"""What is accepted, how it is resolved, and what is refused at submit time with which pointer."""

from typing import Any

import httpx
import pytest

from app.config import Settings
from app.db import Database
from app.jobs.examples import ESTIMATE_EXAMPLE, EVENT_EXAMPLE, JOB_CREATE_EXAMPLES, JOB_READ_EXAMPLE
from app.jobs.records import JobRecord, OutboxRecord
from app.jobs.schemas import Estimate, EventRead, JobCreate, JobRead
from tests import builders
from tests.job_builders import succeed

DYNAMIC = {"technique": "quantize"}
STATIC = {"technique": "quantize", "method": "static"}
PRUNE = {"technique": "prune"}
GONE_MODEL = "mdl_01KAT6W4ZD0Q9V3H8M2N5R7T1X"
GONE_DATASET = "dst_01KAT6W9B2C4D6E8F0G2H4J6K8"


async def submit(client: httpx.AsyncClient, model_id: str, *recipe: dict[str, Any], **fields: Any) -> httpx.Response:
    return await client.post("/v1/jobs", json={"model": model_id, "recipe": list(recipe or [DYNAMIC]), **fields})


def assert_refused(response: httpx.Response, code: str, pointer: str | None, status: int = 422) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["code"]) == (status, code), problem
    if pointer is not None:
        assert pointer in [error["pointer"] for error in problem["errors"]], problem
    return problem


def test_the_examples_of_the_documentation_validate() -> None:
    for example in JOB_CREATE_EXAMPLES:
        JobCreate.model_validate(example)
    JobRead.model_validate(JOB_READ_EXAMPLE)
    EventRead.model_validate(EVENT_EXAMPLE)
    Estimate.model_validate(ESTIMATE_EXAMPLE)


async def test_a_job_is_accepted_with_its_location_and_everything_resolved(
    client: httpx.AsyncClient, model_id: str
) -> None:
    response = await submit(client, model_id, labels={"team": "search"})
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["status"], job["done"], job["attempt"]) == ("job", "queued", False, 0)
    assert job["queue"] == {"name": "cpu", "position": 1}
    assert job["labels"] == {"team": "search"}
    assert job["progress"]["fraction"] == 0.0
    spec = job["spec"]
    assert spec["recipe"][0]["method"] == "dynamic"
    assert spec["recipe"][0]["bits"] == 8
    assert spec["outputs"] == ["onnx"]
    assert spec["target"]["runtime"] == "onnxruntime"
    assert spec["execution"] == {
        "strategy": "single",
        "world_size": 1,
        "timeout_seconds": 3600.0,
        "max_pending_seconds": 86_400.0,
        "priority": "normal",
        "max_attempts": 3,
    }
    for field in ("started_at", "finished_at", "outcome", "termination_reason", "metrics", "error", "environment"):
        assert job[field] is None
    assert job["artifacts"] == []
    assert job["warnings"] == []


async def test_the_hint_reaches_the_broker_and_leaves_no_outbox_row(
    client: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    await submit(client, model_id)
    assert database.broker is not None
    assert database.broker.waiting("cpu") == 1
    with database.reading() as session:
        assert session.query(OutboxRecord).count() == 0


async def test_the_evaluation_set_is_split_where_a_step_needs_calibration(
    client: httpx.AsyncClient, model_id: str, dataset_id: str
) -> None:
    job = (await submit(client, model_id, STATIC, data={"evaluation": dataset_id}, seed=3)).json()
    split = job["spec"]["split"]
    assert split["seed"] == 3
    assert split["roles"]["calibration"] == {"dataset": dataset_id, "part": [0.0, 0.2]}
    assert split["roles"]["evaluation"] == {"dataset": dataset_id, "part": [0.2, 1.0]}
    assert "disjoint" in split["summary"]


NONSENSE: list[tuple[dict[str, Any], str]] = [
    ({"objective": {"minimize": "size_bytes"}}, "/objective"),
    ({"models": ["mdl_a"]}, "/models"),
    ({"publish": {"mlflow": {}}}, "/publish"),
    ({"recipe": []}, "/recipe"),
    ({"recipe": [DYNAMIC] * 21}, "/recipe"),
    ({"recipe": [{"technique": "publish"}]}, "/recipe/0"),
    ({"recipe": [{"method": "dynamic"}]}, "/recipe/0"),
    ({"recipe": ["quantize"]}, "/recipe/0"),
    ({"recipe": [DYNAMIC | {"bits": 10**9}]}, "/recipe/0/bits"),
    ({"recipe": [DYNAMIC | {"group_size": 32}]}, "/recipe/0/group_size"),
    ({"recipe": [PRUNE | {"sparsity": -1}]}, "/recipe/0/sparsity"),
    ({"recipe": [PRUNE | {"sparsity": 1.0000001}]}, "/recipe/0/sparsity"),
    ({"recipe": [PRUNE | {"sparsity": "0.5; rm"}]}, "/recipe/0/sparsity"),
    ({"recipe": [PRUNE | {"max_drop": 1.5}]}, "/recipe/0/max_drop"),
    ({"recipe": [PRUNE | {"max_drop": 0.01}]}, "/recipe/0/max_drop"),
    ({"recipe": [PRUNE | {"max_drop": 0.01, "sparsity": 0.5}]}, "/recipe/0"),
    ({"recipe": [PRUNE | {"max_drop": 0.01, "threshold": 0.1}]}, "/recipe/0"),
    ({"recipe": [PRUNE | {"include": ["a" * 257]}]}, "/recipe/0/include/0"),
    ({"recipe": [PRUNE | {"include": ["*"] * 1001}]}, "/recipe/0/include"),
    ({"execution": {"strategy": "data_parallel"}}, "/execution/strategy"),
    ({"execution": {"world_size": 2}}, "/execution/world_size"),
    ({"execution": {"timeout_seconds": 0}}, "/execution/timeout_seconds"),
    ({"execution": {"priority": "urgent"}}, "/execution/priority"),
    ({"execution": {"max_attempts": 11}}, "/execution/max_attempts"),
    ({"evaluation": {"batch_sizes": []}}, "/evaluation/batch_sizes"),
    ({"evaluation": {"metric": "accuracy"}}, "/evaluation/metric"),
    ({"target": {"runtime": "tensorrt"}}, "/target/runtime"),
    ({"seed": -1}, "/seed"),
    ({"seed": 1 << 32}, "/seed"),
    ({"labels": {"a": 1}}, "/labels/a"),
    ({"labels": {str(index): "" for index in range(65)}}, "/labels"),
    ({"model": GONE_MODEL}, "/model"),
    ({"model": "x" * 41}, "/model"),
    ({"model": None}, "/model"),
    ({"data": {"evaluation": GONE_DATASET}}, "/data/evaluation"),
    ({"data": {"test": GONE_DATASET}}, "/data/test"),
    ({"recipe": [STATIC]}, "/data/calibration"),
]


async def test_nonsense_is_refused_with_a_pointer(client: httpx.AsyncClient, model_id: str, database: Database) -> None:
    for fields, pointer in NONSENSE:
        response = await client.post("/v1/jobs", json={"model": model_id, "recipe": [DYNAMIC]} | fields)
        assert_refused(response, "invalid_spec", pointer)
    with database.reading() as session:
        assert session.query(JobRecord).count() == 0


async def test_numbers_that_are_none_are_refused(client: httpx.AsyncClient, model_id: str) -> None:
    for number in ("NaN", "Infinity", "-Infinity", "1e400"):
        body = f'{{"model": "{model_id}", "recipe": [{{"technique": "prune", "sparsity": {number}}}]}}'
        response = await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in {400, 422}, number
        assert response.json()["code"] in {"invalid_request", "invalid_spec"}


BOMBS: dict[str, tuple[str, set[int]]] = {
    "deep list": ("[" * 100_000 + "]" * 100_000, {400, 422}),
    "deep object": ('{"a":' * 100_000 + "1" + "}" * 100_000, {400, 422}),
    "long string": ('{"model": "' + "m" * 5_000_000 + '", "recipe": [{"technique": "quantize"}]}', {413}),
    "a million layers": ('{"model": "m", "recipe": [{"technique": "prune", "include": [' + '"layer",' * 10**6, {413}),
    "long number": ('{"model": "m", "recipe": [{"technique": "quantize", "bits": ' + "9" * 10_000 + "}]}", {400, 422}),
    "not json": ("{not json", {400, 422}),
    "empty": ("", {400, 422}),
}


async def test_bombs_are_refused_in_few_words(client: httpx.AsyncClient) -> None:
    for name, (body, statuses) in BOMBS.items():
        response = await client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in statuses, name
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.content) < 20_000


async def test_steps_that_exclude_each_other_are_refused(client: httpx.AsyncClient, model_id: str) -> None:
    problem = assert_refused(await submit(client, model_id, DYNAMIC, PRUNE), "incompatible_steps", "/recipe/1")
    assert "Put prune.magnitude first" in problem["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"recipe": [{"technique": "prune", "method": "cost_complexity"}]}, "/recipe/0"),
        ({"target": {"runtime": "torch"}}, "/target/runtime"),
        ({"outputs": ["pt2"]}, "/outputs/0"),
    ],
)
async def test_what_the_model_cannot_be_served_with_is_refused(
    client: httpx.AsyncClient, model_id: str, fields: dict[str, Any], pointer: str
) -> None:
    response = await client.post("/v1/jobs", json={"model": model_id, "recipe": [DYNAMIC]} | fields)
    assert_refused(response, "unsupported_technique", pointer)


async def test_a_rejected_model_is_refused(client: httpx.AsyncClient, database: Database, project_id: str) -> None:
    with database.transaction() as session:
        rejected = builders.add_model(session, project_id, status="rejected").id
    problem = assert_refused(await submit(client, rejected), "invalid_spec", "/model")
    assert problem["reason"] == "model_rejected"


async def test_another_projects_model_does_not_exist(client: httpx.AsyncClient, database: Database) -> None:
    with database.transaction() as session:
        other = builders.add_project(session, "other").id
        model = builders.add_model(session, other).id
    problem = assert_refused(await submit(client, model), "invalid_spec", "/model")
    assert problem["reason"] == "no_such_model"


async def test_a_model_that_cannot_fit_is_refused_at_post_and_at_estimate(
    client: httpx.AsyncClient, database: Database, project_id: str, settings: Settings
) -> None:
    with database.transaction() as session:
        model = builders.add_model(session, project_id)
        model.size_bytes = 2 * settings.child_memory_bytes
    for path in ("/v1/jobs", "/v1/jobs/estimate"):
        response = await client.post(path, json={"model": model.id, "recipe": [DYNAMIC]})
        assert_refused(response, "out_of_memory", "/model")


async def test_a_full_queue_is_refused_with_when_to_come_back(
    client: httpx.AsyncClient, model_id: str, services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(services), "settings", services.settings.model_copy(update={"max_queued_jobs": 1}))
    assert (await submit(client, model_id)).status_code == 202
    response = await submit(client, model_id)
    assert_refused(response, "rate_limited", None, status=429)
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["ratelimit-limit"] == "1"


async def test_priorities_move_a_job_ahead(client: httpx.AsyncClient, model_id: str) -> None:
    low = (await submit(client, model_id, execution={"priority": "low"})).json()
    normal = (await submit(client, model_id)).json()
    high = (await submit(client, model_id, execution={"priority": "high"})).json()
    shown = [(await client.get(f"/v1/jobs/{job['id']}")).json()["queue"]["position"] for job in (high, normal, low)]
    assert shown == [1, 2, 3]


async def test_retry_submits_the_same_spec_as_a_new_job(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database
) -> None:
    first = (await submit(client, model_id, STATIC, data={"evaluation": dataset_id}, labels={"a": "b"})).json()
    assert_refused(await client.post(f"/v1/jobs/{first['id']}/retry"), "job_not_finished", None, status=409)
    succeed(database, first["id"])
    response = await client.post(f"/v1/jobs/{first['id']}/retry")
    again = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{again['id']}"
    assert again["id"] != first["id"]
    assert again["spec"] == first["spec"]
    assert again["status"] == "queued"
