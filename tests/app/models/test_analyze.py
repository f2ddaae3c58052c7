"""``POST /v1/models/{id}/analyze``: what is accepted, refused, listed, retried, and what is kept of a model."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from app.datasets.records import DatasetRecord
from app.db import Database
from app.jobs.examples import ANALYSIS_CREATE_EXAMPLES, ANALYSIS_SPEC_EXAMPLE
from app.jobs.records import JobRecord
from app.jobs.schemas import AnalysisCreate, AnalysisSpec
from app.jobs.service import admit_waiting
from app.models.records import ModelRecord
from app.sensitivities import repository as sensitivities
from app.sensitivities.records import SensitivityRecord
from tests import builders
from tests.job_builders import LAYERS, succeed
from workers.compression.specs.sensitivity import MeasuredOption, Measurement, SensitivityMap, WeightSensitivity

SHA256 = "a" * 64


def measured(*options: tuple[int, float], data: str = "b" * 64, name: str = "dense.weight") -> SensitivityMap:
    return SensitivityMap(
        measured=Measurement(model=SHA256, data=data, rows=32, algorithm="rtn", scheme="affine", group_size=32),
        rows=32,
        weights=(
            WeightSensitivity(
                name=name,
                layer=name.removesuffix(".weight"),
                parameters=4096,
                options=tuple(MeasuredOption(bits=bits, error=error) for bits, error in options),
            ),
        ),
    )


@pytest.fixture
def project_id(database: Database) -> str:
    with database.transaction() as session:
        return builders.add_project(session).id


@pytest.fixture
def model_id(database: Database, project_id: str) -> str:
    with database.transaction() as session:
        return builders.add_model(session, project_id).id


@pytest.fixture
def dataset_id(database: Database, project_id: str) -> str:
    with database.transaction() as session:
        return builders.add_dataset(session, project_id).id


async def analyze(client: httpx.AsyncClient, model_id: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/models/{model_id}/analyze", json=body)


def test_the_examples_of_the_documentation_validate() -> None:
    for example in ANALYSIS_CREATE_EXAMPLES:
        AnalysisCreate.model_validate(example)
    AnalysisSpec.model_validate(ANALYSIS_SPEC_EXAMPLE)


async def test_an_analysis_is_a_job_with_its_location_and_everything_resolved(
    client: httpx.AsyncClient, model_id: str, dataset_id: str
) -> None:
    response = await analyze(client, model_id, data={"calibration": dataset_id}, bits=[2, 4], labels={"a": "b"}, seed=3)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["status"], job["queue"]["name"]) == ("job", "queued", "cpu")
    assert job["labels"] == {"a": "b"}
    spec = job["spec"]
    assert (spec["model"], spec["recipe"], spec["bits"], spec["algorithm"]) == (model_id, [], [2, 4], "rtn")
    assert spec["split"]["roles"]["calibration"] == {"dataset": dataset_id, "part": [0.0, 0.2]}
    assert (await client.get(f"/v1/jobs/{job['id']}")).json()["spec"] == spec
    assert [found["id"] for found in (await client.get("/v1/jobs", params={"model": model_id})).json()["data"]] == [
        job["id"]
    ]


async def test_the_rows_are_those_that_a_job_would_calibrate_on(
    client: httpx.AsyncClient, model_id: str, dataset_id: str
) -> None:
    analysis = (await analyze(client, model_id, data={"evaluation": dataset_id}, seed=5)).json()
    recipe = [{"technique": "quantize", "method": "mixed"}]
    request = {"model": model_id, "recipe": recipe, "data": {"evaluation": dataset_id}, "seed": 5}
    job = (await client.post("/v1/jobs", json=request)).json()
    assert analysis["spec"]["split"] == job["spec"]["split"]


async def test_no_body_means_the_defaults_and_made_up_inputs(client: httpx.AsyncClient, model_id: str) -> None:
    response = await client.post(f"/v1/models/{model_id}/analyze")
    assert response.status_code == 202
    assert response.json()["spec"]["split"]["roles"] == {}
    assert response.json()["spec"]["bits"] == [2, 3, 4, 6, 8]


async def test_the_same_key_replays_and_another_body_with_it_is_refused(
    client: httpx.AsyncClient, model_id: str, database: Database
) -> None:
    path, headers = f"/v1/models/{model_id}/analyze", {"Idempotency-Key": "once"}
    first = await client.post(path, json={"bits": [4]}, headers=headers)
    again = await client.post(path, json={"bits": [4]}, headers=headers)
    other = await client.post(path, json={"bits": [8]}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    with database.reading() as session:
        assert session.query(JobRecord).count() == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"bits": [1]}, "/bits/0"),
        ({"bits": []}, "/bits"),
        ({"algorithm": "magic"}, "/algorithm"),
        ({"group_size": 7}, "/group_size"),
        ({"sensitivity_samples": 0}, "/sensitivity_samples"),
        ({"data": {"evaluation": "dst_gone"}}, "/data/evaluation"),
        ({"include": [""]}, "/include/0"),
        ({"recipe": []}, "/recipe"),
        ({"input_shapes": {"input": [-1]}}, "/input_shapes/input/0"),
    ],
)
async def test_nonsense_is_refused_with_a_pointer(
    client: httpx.AsyncClient, model_id: str, body: dict[str, Any], pointer: str
) -> None:
    response = await analyze(client, model_id, **body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_spec")
    assert pointer in [error["pointer"] for error in response.json()["errors"]]


async def test_a_model_that_is_not_there_or_cannot_be_run_is_refused(
    client: httpx.AsyncClient, database: Database, project_id: str
) -> None:
    missing = await analyze(client, "mdl_gone")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    with database.transaction() as session:
        other = builders.add_model(session, builders.add_project(session, "other").id, sha256="c" * 64).id
        rejected = builders.add_model(session, project_id, sha256="d" * 64, status="rejected").id
        tensors = builders.add_model(session, project_id, sha256="e" * 64)
        tensors.format, tensors.family = "safetensors", "tensors"
    assert (await analyze(client, other)).status_code == 404
    assert (await analyze(client, rejected)).json()["reason"] == "model_rejected"
    refused = await analyze(client, tensors.id)
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_technique")


async def test_data_that_does_not_fit_is_refused_at_submit(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database
) -> None:
    with database.transaction() as session:
        dataset = session.get_one(DatasetRecord, dataset_id)
        dataset.inspection = dataset.inspection | {
            "features": [{"name": "input", "shape": [-1, 3, 8, 8], "dtype": "float32"}]
        }
    refused = await analyze(client, model_id, data={"calibration": dataset_id})
    assert (refused.status_code, refused.json()["code"]) == (422, "dataset_mismatch")
    assert refused.json()["errors"][0]["pointer"] == "/data/calibration"


async def test_an_analysis_waits_for_its_model_and_fails_with_it(
    client: httpx.AsyncClient, database: Database, project_id: str
) -> None:
    with database.transaction() as session:
        model_id = builders.add_model(session, project_id, status="inspecting").id
    job_id = (await analyze(client, model_id)).json()["id"]
    with database.transaction() as session:
        model = session.get_one(ModelRecord, model_id)
        model.status, model.family = "ready", "neural_network"
        model.inspection = builders.MODEL_INSPECTION
        session.flush()
        admit_waiting(session, model_id)
    assert (await client.get(f"/v1/jobs/{job_id}")).json()["queue"]["position"] == 1
    with database.reading() as session:
        assert session.get_one(JobRecord, job_id).admitted


async def test_a_key_that_may_only_read_cannot_analyze(
    client: httpx.AsyncClient, database: Database, model_id: str
) -> None:
    reader = {"Authorization": f"Bearer {builders.add_key(database, 'read')}"}
    response = await client.post(f"/v1/models/{model_id}/analyze", json={}, headers=reader)
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert (await client.post(f"/v1/models/{model_id}/analyze", json={})).status_code == 401


async def test_it_is_cancelled_retried_and_deleted_as_any_job(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, database: Database
) -> None:
    first = (await analyze(client, model_id, data={"calibration": dataset_id}, bits=[4], labels={"a": "b"})).json()
    assert (await client.post(f"/v1/jobs/{first['id']}/cancel")).json()["status"] == "cancelled"
    response = await client.post(f"/v1/jobs/{first['id']}/retry")
    again = response.json()
    assert response.status_code == 202
    assert (again["spec"], again["labels"]) == (first["spec"], {"a": "b"})
    succeed(database, again["id"], metrics=None, layers=[LAYERS[0] | {"sensitivity": 0.25}])
    assert (await client.get(f"/v1/jobs/{again['id']}/layers")).json()["data"][0]["sensitivity"] == 0.25
    assert (await client.get("/v1/comparisons", params={"job": [again["id"]]})).status_code == 200
    assert (await client.delete(f"/v1/jobs/{again['id']}")).status_code == 204


async def test_maps_are_kept_merged_and_forgotten_with_their_model(
    client: httpx.AsyncClient, database: Database, project_id: str, model_id: str
) -> None:
    with database.transaction() as session:
        sensitivities.keep(session, project_id, measured((4, 0.1)))
        sensitivities.keep(session, project_id, measured((8, 0.01)))
        sensitivities.keep(session, project_id, measured((2, 0.5), name="other.weight"))
        sensitivities.keep(session, project_id, measured((2, 0.5), data="c" * 64))
    with database.reading() as session:
        other_rows, known = sensitivities.known(session, project_id, SHA256)
        assert sensitivities.known(session, project_id, "f" * 64) == []
    assert other_rows.measured.data == "c" * 64
    assert {w.name: [option.bits for option in w.options] for w in known.weights} == {
        "dense.weight": [4, 8],
        "other.weight": [2],
    }
    assert (await client.delete(f"/v1/models/{model_id}")).status_code == 204
    with database.reading() as session:
        assert session.query(SensitivityRecord).count() == 0


def test_jobs_that_end_at_once_add_to_each_other(any_database: Database) -> None:
    with any_database.transaction() as session:
        project_id = builders.add_project(session).id

    def keep(bits: int) -> None:
        with any_database.transaction() as session:
            sensitivities.keep(session, project_id, measured((bits, 0.1)))

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(keep, (2, 3, 4, 6, 8)))
    with any_database.reading() as session:
        (known,) = sensitivities.known(session, project_id, SHA256)
    assert [option.bits for option in known.weights[0].options] == [2, 3, 4, 6, 8]


async def test_the_document_describes_it(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/models/{model_id}/analyze"]["post"]
    assert {"202", "401", "403", "404", "409", "422", "429"} <= operation["responses"].keys()
    assert "Location" in operation["responses"]["202"]["headers"]
    assert document["components"]["schemas"]["AnalysisCreate"]["examples"]
