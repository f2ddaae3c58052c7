"""Validation, estimates, and jobs that wait for an inspection."""

from typing import Any

import httpx
import pytest

from app.config import Settings
from app.db import Database
from app.jobs import repository, service
from app.jobs.records import JobRecord
from tests import builders
from tests.job_builders import succeed

DYNAMIC = {"technique": "quantize"}
STATIC = {"technique": "quantize", "method": "static"}
PRUNE = {"technique": "prune"}


async def post(client: httpx.AsyncClient, path: str, model_id: str, *recipe: dict[str, Any], **fields: Any) -> Any:
    return await client.post(path, json={"model": model_id, "recipe": list(recipe), **fields})


def count_jobs(database: Database) -> int:
    with database.reading() as session:
        return session.query(JobRecord).count()


async def test_validating_fills_in_defaults_and_creates_nothing(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database
) -> None:
    response = await post(client, "/v1/jobs/validate", model_id, PRUNE, STATIC, data={"evaluation": dataset_id})
    plan = response.json()
    assert response.status_code == 200
    assert plan["valid"]
    assert [step["method"] for step in plan["steps"]] == ["magnitude", "static"]
    assert plan["steps"][1]["needs"] == ["calibration"]
    assert plan["spec"]["recipe"][0]["sparsity"] == 0.5
    assert plan["spec"]["split"]["roles"]["calibration"]["part"] == [0.0, 0.2]
    assert (plan["conflicts"], plan["waiting_for"]) == ([], [])
    assert count_jobs(database) == 0


async def test_validating_names_conflicts_and_an_order_that_works(client: httpx.AsyncClient, model_id: str) -> None:
    plan = (await post(client, "/v1/jobs/validate", model_id, DYNAMIC, PRUNE)).json()
    assert not plan["valid"]
    [conflict] = plan["conflicts"]
    assert conflict["pointer"] == "/recipe/1"
    assert conflict["steps"] == ["quantize.dynamic", "prune.magnitude"]
    assert [step["index"] for step in plan["steps"]] == [1, 0]


async def test_validating_refuses_what_submitting_refuses(client: httpx.AsyncClient, model_id: str) -> None:
    response = await post(client, "/v1/jobs/validate", model_id, STATIC)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_spec")


async def test_a_plan_can_be_submitted_without_its_split(client: httpx.AsyncClient, model_id: str) -> None:
    spec = (await post(client, "/v1/jobs/validate", model_id, DYNAMIC)).json()["spec"]
    del spec["split"]
    assert (await client.post("/v1/jobs", json=spec)).status_code == 202


async def test_estimates_are_bands_that_history_narrows(
    client: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    before = (await post(client, "/v1/jobs/estimate", model_id, DYNAMIC)).json()
    for name in ("seconds", "peak_memory_bytes", "size_bytes"):
        assert 0 < before[name]["low"] <= before[name]["typical"] <= before[name]["high"]
    assert before["basis"] == {"parameters": 4810, "size_bytes": 19_240, "similar_jobs": 0}
    assert before["size_bytes"]["low"] == pytest.approx(19_240 / 4)
    job = (await post(client, "/v1/jobs", model_id, DYNAMIC)).json()
    succeed(database, job["id"])
    after = (await post(client, "/v1/jobs/estimate", model_id, DYNAMIC)).json()
    assert after["basis"]["similar_jobs"] == 1
    assert after["size_bytes"]["typical"] == pytest.approx(5_500, abs=1)
    assert after["seconds"]["high"] < before["seconds"]["high"]
    other = (await post(client, "/v1/jobs/estimate", model_id, PRUNE)).json()
    assert other["basis"]["similar_jobs"] == 0


MISMATCHES: list[dict[str, Any]] = [
    {"features": [{"name": "pixels", "shape": [100, 32], "dtype": "float32"}]},
    {"features": [{"name": "a", "shape": [100], "dtype": "float64"}], "format": "csv"},
    {"features": [{"name": "text", "shape": [100], "dtype": "str"}], "format": "jsonl"},
    {"features": [{"name": "input", "shape": [3, 64], "dtype": "float32"}], "rows": 3},
]


@pytest.mark.parametrize("found", MISMATCHES, ids=["width", "columns", "text", "too few rows"])
async def test_data_that_cannot_be_fed_is_refused(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database, found: dict[str, Any]
) -> None:
    with database.transaction() as session:
        dataset = builders.DatasetRecord
        record = session.get_one(dataset, dataset_id)
        record.inspection = builders.DATASET_INSPECTION | found
        record.format = str(found.get("format", "npz"))
    response = await post(client, "/v1/jobs", model_id, STATIC, data={"evaluation": dataset_id})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "dataset_mismatch")
    assert problem["errors"][0]["pointer"] == "/data/evaluation"


async def test_a_metric_of_another_task_is_refused(client: httpx.AsyncClient, model_id: str, dataset_id: str) -> None:
    fields = {"data": {"evaluation": dataset_id}, "evaluation": {"metric": "rmse"}}
    response = await post(client, "/v1/jobs", model_id, DYNAMIC, **fields)
    assert response.json()["errors"][0]["pointer"] == "/evaluation/metric"


async def test_bare_tensors_take_no_data(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database
) -> None:
    with database.transaction() as session:
        model = session.get_one(builders.ModelRecord, model_id)
        model.format, model.family = "safetensors", "tensors"
    response = await post(client, "/v1/jobs", model_id, PRUNE, data={"evaluation": dataset_id})
    assert response.json()["reason"] == "model_not_runnable"
    plan = (await post(client, "/v1/jobs/validate", model_id, PRUNE)).json()
    assert "cannot be run" in plan["warnings"][0]


def finish_inspection(database: Database, model_id: str, **found: Any) -> None:
    with database.transaction() as session:
        model = session.get_one(builders.ModelRecord, model_id)
        model.status, model.family, model.inspection = "ready", "neural_network", builders.MODEL_INSPECTION
        for name, value in found.items():
            setattr(model, name, value)
        session.flush()
        service.admit_waiting(session, model_id)


@pytest.fixture
def inspecting_id(database: Database, project_id: str) -> str:
    with database.transaction() as session:
        return builders.add_model(session, project_id, status="inspecting").id


async def test_a_job_on_an_inspecting_model_waits_and_is_then_admitted(
    client: httpx.AsyncClient, inspecting_id: str, database: Database
) -> None:
    job = (await post(client, "/v1/jobs", inspecting_id, DYNAMIC)).json()
    assert job["status"] == "queued"
    assert database.broker is not None
    assert database.broker.waiting("cpu") == 0
    finish_inspection(database, inspecting_id)
    assert database.broker.waiting("cpu") == 1
    resolved = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert resolved["spec"]["outputs"] == ["onnx"]
    assert resolved["spec"]["target"]["runtime"] == "onnxruntime"


async def test_a_job_whose_model_turns_out_unfit_fails_with_the_refusal(
    client: httpx.AsyncClient, inspecting_id: str, database: Database
) -> None:
    job = (await post(client, "/v1/jobs", inspecting_id, DYNAMIC)).json()
    finish_inspection(database, inspecting_id, format="skops", family="tree_ensemble")
    failed = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "unsupported_technique")
    assert failed["termination_reason"] == "error"


async def test_a_job_whose_model_is_rejected_fails(
    client: httpx.AsyncClient, inspecting_id: str, database: Database
) -> None:
    job = (await post(client, "/v1/jobs", inspecting_id, DYNAMIC)).json()
    finish_inspection(database, inspecting_id, status="rejected", inspection=None)
    failed = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert (failed["status"], failed["error"]["reason"]) == ("failed", "model_rejected")


async def test_a_job_waits_for_every_one_of_its_inputs(
    client: httpx.AsyncClient, inspecting_id: str, database: Database, project_id: str
) -> None:
    with database.transaction() as session:
        dataset_id = builders.add_dataset(session, project_id, status="inspecting").id
    await post(client, "/v1/jobs", inspecting_id, STATIC, data={"evaluation": dataset_id})
    assert database.broker is not None
    finish_inspection(database, inspecting_id)
    assert database.broker.waiting("cpu") == 0
    with database.transaction() as session:
        dataset = session.get_one(builders.DatasetRecord, dataset_id)
        dataset.status, dataset.inspection = "ready", builders.DATASET_INSPECTION
        session.flush()
        service.admit_waiting(session, dataset_id)
    assert database.broker.waiting("cpu") == 1


async def test_the_runner_gets_the_rows_of_each_role(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database
) -> None:
    job = (await post(client, "/v1/jobs", model_id, STATIC, data={"evaluation": dataset_id}, seed=5)).json()
    with database.reading() as session:
        record = repository.find(session, job["id"])
        assert record is not None
        uses = service.data_for(session, record)
    assert {role: use.part for role, use in uses.items()} == {"calibration": (0.0, 0.2), "evaluation": (0.2, 1.0)}
    assert {(use.sha256, use.format, use.split_seed) for use in uses.values()} == {(builders.SHA256, "npz", 5)}


def test_inspections_are_jobs_that_nobody_sees(database: Database, project_id: str, settings: Settings) -> None:
    with database.transaction() as session:
        job = service.submit_inspection(session, "inspect_model", project_id, "mdl_a")
        assert (job.capability, job.model_id, job.dataset_id) == ("inspect", "mdl_a", None)
        assert repository.get(session, project_id, job.id) is None
    assert database.broker is not None
    assert database.broker.waiting("inspect") == 1
    assert settings.max_queued_jobs > 0
