"""Jobs that train: which data they take, which labels they need, and models that take the original's place."""

from typing import Any

import httpx
import pytest

from app.db import Database
from app.jobs import service
from app.jobs.records import JobRecord
from app.models.records import ModelRecord
from tests import builders
from tests.job_builders import succeed

FINETUNE = {"technique": "finetune"}
RECOVER = {"technique": "finetune", "method": "recover"}
DISTILL = {"technique": "distill"}
PRUNE = {"technique": "prune"}
DYNAMIC = {"technique": "quantize"}
TREES_ONLY = {"technique": "prune", "method": "cost_complexity"}
TEN = [str(digit) for digit in range(10)]
GONE_MODEL = "mdl_01KAT6W4ZD0Q9V3H8M2N5R7T1X"


def change(database: Database, kind: type[Any], record_id: str, inspection: dict[str, Any], **fields: Any) -> None:
    with database.transaction() as session:
        record = session.get_one(kind, record_id)
        record.inspection = (record.inspection or {}) | inspection
        for name, value in fields.items():
            setattr(record, name, value)


@pytest.fixture
def network_id(database: Database, model_id: str) -> str:
    """A model that can be trained."""
    change(database, ModelRecord, model_id, {}, format="pt2")
    return model_id


@pytest.fixture
def student_id(database: Database, project_id: str) -> str:
    """A smaller model beside the job's own."""
    with database.transaction() as session:
        student = builders.add_model(session, project_id, sha256="b" * 64)
        student.format = "pt2"
        return student.id


@pytest.fixture
def other_dataset_id(database: Database, project_id: str) -> str:
    with database.transaction() as session:
        return builders.add_dataset(session, project_id, sha256="c" * 64).id


async def submit(client: httpx.AsyncClient, model: str, *recipe: dict[str, Any], **fields: Any) -> httpx.Response:
    return await client.post("/v1/jobs", json={"model": model, "recipe": list(recipe), **fields})


def assert_refused(response: httpx.Response, code: str, reason: str, pointer: str) -> dict[str, Any]:
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["code"], problem.get("reason")) == (422, code, reason), problem
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    return problem


async def test_training_takes_its_rows_from_the_data_there_is(
    client: httpx.AsyncClient, network_id: str, dataset_id: str
) -> None:
    job = (await submit(client, network_id, FINETUNE, data={"evaluation": dataset_id})).json()
    roles = job["spec"]["split"]["roles"]
    assert roles == {
        "train": {"dataset": dataset_id, "part": [0.0, 0.75]},
        "evaluation": {"dataset": dataset_id, "part": [0.75, 1.0]},
    }


async def test_training_without_data_names_the_step(client: httpx.AsyncClient, network_id: str) -> None:
    problem = assert_refused(
        await submit(client, network_id, PRUNE, FINETUNE), "invalid_spec", "training_data_needed", "/data/train"
    )
    assert "finetune.full (step 1)" in problem["detail"]


async def test_labels_have_to_be_in_the_data_that_is_trained_on(
    client: httpx.AsyncClient, network_id: str, dataset_id: str, other_dataset_id: str, database: Database
) -> None:
    change(database, builders.DatasetRecord, dataset_id, {"task": "fidelity", "target": None, "classes": []})
    data = {"train": dataset_id, "evaluation": other_dataset_id}
    problem = assert_refused(
        await submit(client, network_id, FINETUNE, data=data), "unsupported_technique", "labels_needed", "/data/train"
    )
    assert dataset_id in problem["detail"]
    for step in (RECOVER, DISTILL):
        assert (await submit(client, network_id, step, data=data)).status_code == 202


@pytest.mark.parametrize(
    ("task", "classes", "reason"),
    [
        ("classification", TEN, None),
        ("classification", TEN[:7], None),
        ("classification", [*TEN, "10"], "classes_differ"),
        ("classification", ["cat", "dog"], "classes_differ"),
        ("regression", [], "tasks_differ"),
        ("fidelity", [], None),
    ],
)
async def test_what_is_learnt_has_to_be_what_is_judged(
    client: httpx.AsyncClient,
    network_id: str,
    dataset_id: str,
    other_dataset_id: str,
    database: Database,
    task: str,
    classes: list[str],
    reason: str | None,
) -> None:
    change(database, builders.DatasetRecord, other_dataset_id, {"task": task, "classes": classes})
    response = await submit(client, network_id, FINETUNE, data={"train": dataset_id, "evaluation": other_dataset_id})
    if reason is None:
        assert response.status_code == 202
    else:
        assert_refused(response, "dataset_mismatch", reason, "/data/evaluation")


@pytest.mark.parametrize(
    ("width", "classes", "accepted"),
    [(10, 10, True), (10, 8, True), (10, 11, False), (1, 2, True), (1, 3, False), ("n", 11, True)],
)
async def test_a_kept_head_has_an_output_for_each_class(
    client: httpx.AsyncClient,
    network_id: str,
    dataset_id: str,
    database: Database,
    width: int | str,
    classes: int,
    accepted: bool,
) -> None:
    outputs = [{"name": "logits", "shape": ["batch", width], "dtype": "float32"}]
    change(database, ModelRecord, network_id, {"outputs": outputs})
    names = [str(number) for number in range(classes)]
    change(database, builders.DatasetRecord, dataset_id, {"classes": names})
    response = await submit(client, network_id, FINETUNE | {"head": "keep"}, data={"train": dataset_id})
    if accepted:
        assert response.status_code == 202
    else:
        assert_refused(response, "dataset_mismatch", "head_too_narrow", "/data/train")
    assert (await submit(client, network_id, FINETUNE, data={"train": dataset_id})).status_code == 202


async def test_pairs_of_texts_with_scores_can_be_trained_on(
    client: httpx.AsyncClient, network_id: str, dataset_id: str, database: Database
) -> None:
    features = [{"name": name, "shape": [100], "dtype": "str"} for name in ("text_a", "text_b")]
    inputs = [{"name": "input_ids", "shape": ["n", "t"], "dtype": "int64"}]
    change(database, builders.DatasetRecord, dataset_id, {"features": features, "task": "similarity", "classes": []})
    change(database, ModelRecord, network_id, {"inputs": inputs, "details": {"tokenizer": True}})
    assert (await submit(client, network_id, FINETUNE, data={"train": dataset_id})).status_code == 202


async def test_the_artifact_of_a_distillation_has_the_students_format(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str
) -> None:
    recipe = [PRUNE, DISTILL | {"student": student_id}, FINETUNE, DYNAMIC]
    job = (await submit(client, model_id, *recipe, data={"train": dataset_id})).json()
    assert (job["spec"]["outputs"], job["spec"]["target"]["runtime"]) == (["pt2"], "torch")


async def test_steps_after_a_student_have_to_serve_the_student(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str
) -> None:
    distill = DISTILL | {"student": student_id}
    data = {"train": dataset_id}
    response = await submit(client, model_id, distill, TREES_ONLY, data=data)
    problem = assert_refused(response, "unsupported_technique", "model_format", "/recipe/1")
    assert "this one is pt2" in problem["detail"]
    response = await submit(client, model_id, FINETUNE | {"method": "lora"}, distill, data=data)
    assert_refused(response, "unsupported_technique", "model_format", "/recipe/0")


async def test_a_student_has_to_be_a_model_of_the_project_that_can_be_trained(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    with database.transaction() as session:
        foreign = builders.add_model(session, builders.add_project(session, "other").id).id
    for student in (GONE_MODEL, foreign):
        response = await submit(client, model_id, PRUNE, DISTILL | {"student": student}, data={"train": dataset_id})
        assert_refused(response, "invalid_spec", "no_such_model", "/recipe/1/student")
    change(database, ModelRecord, student_id, {}, format="skops", family="tree_ensemble")
    response = await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})
    assert_refused(response, "unsupported_technique", "model_format", "/recipe/0/student")


async def test_a_rejected_student_is_refused(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    change(database, ModelRecord, student_id, {}, status="rejected")
    response = await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})
    assert_refused(response, "invalid_spec", "model_rejected", "/recipe/0/student")


@pytest.mark.parametrize(("form", "family"), [("skops", "tree_ensemble"), ("safetensors", "tensors")])
async def test_only_a_network_that_runs_can_teach(
    client: httpx.AsyncClient,
    model_id: str,
    student_id: str,
    dataset_id: str,
    database: Database,
    form: str,
    family: str,
) -> None:
    change(database, ModelRecord, model_id, {}, format=form, family=family)
    response = await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})
    assert_refused(response, "unsupported_technique", "teacher_format", "/recipe/0")


async def test_the_data_has_to_fit_the_student_too(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    inputs = [{"name": "input", "shape": ["batch", 32], "dtype": "float32"}]
    change(database, ModelRecord, student_id, {"inputs": inputs})
    response = await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "dataset_mismatch")
    assert student_id in problem["detail"]


async def test_a_student_is_not_deleted_under_a_job(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    job = (await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})).json()
    assert (await client.delete(f"/v1/models/{student_id}")).status_code == 409
    succeed(database, job["id"])
    assert (await client.delete(f"/v1/models/{student_id}")).status_code == 204


async def test_a_distillation_can_be_retried(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    job = (await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})).json()
    succeed(database, job["id"])
    response = await client.post(f"/v1/jobs/{job['id']}/retry")
    assert response.status_code == 202
    assert response.json()["spec"] == job["spec"]


async def test_a_job_waits_for_its_student_and_is_then_resolved(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, project_id: str, database: Database
) -> None:
    with database.transaction() as session:
        student_id = builders.add_model(session, project_id, sha256="b" * 64, status="inspecting").id
    job = (await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})).json()
    assert job["spec"]["outputs"] == []
    with database.reading() as session:
        assert not session.get_one(JobRecord, job["id"]).admitted
    with database.transaction() as session:
        student = session.get_one(ModelRecord, student_id)
        student.status, student.format, student.family = "ready", "huggingface", "neural_network"
        student.inspection = builders.MODEL_INSPECTION
        session.flush()
        service.admit_waiting(session, student_id)
    spec = (await client.get(f"/v1/jobs/{job['id']}")).json()["spec"]
    assert (spec["outputs"], spec["target"]["runtime"]) == (["huggingface"], "torch")
    with database.reading() as session:
        assert session.get_one(JobRecord, job["id"]).admitted


async def test_a_waiting_job_fails_if_its_student_turns_out_unfit(
    client: httpx.AsyncClient, model_id: str, dataset_id: str, project_id: str, database: Database
) -> None:
    with database.transaction() as session:
        student_id = builders.add_model(session, project_id, sha256="b" * 64, status="inspecting").id
    job = (await submit(client, model_id, DISTILL | {"student": student_id}, data={"train": dataset_id})).json()
    with database.transaction() as session:
        student = session.get_one(ModelRecord, student_id)
        student.status, student.family, student.inspection = "ready", "tree_ensemble", builders.MODEL_INSPECTION
        session.flush()
        service.admit_waiting(session, student_id)
    failed = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "unsupported_technique")


async def seconds_of(client: httpx.AsyncClient, model: str, dataset: str, *recipe: dict[str, Any]) -> dict[str, float]:
    body = {"model": model, "recipe": list(recipe), "data": {"train": dataset}}
    response = await client.post("/v1/jobs/estimate", json=body)
    assert response.status_code == 200, response.json()
    seconds: dict[str, float] = response.json()["seconds"]
    assert 0 < seconds["low"] <= seconds["typical"] <= seconds["high"]
    return seconds


async def test_estimates_of_training_grow_with_rows_epochs_and_parameters(
    client: httpx.AsyncClient, network_id: str, dataset_id: str, database: Database
) -> None:
    change(database, ModelRecord, network_id, {"parameters": 20_000_000})
    plain = await seconds_of(client, network_id, dataset_id, PRUNE)
    one = await seconds_of(client, network_id, dataset_id, FINETUNE | {"epochs": 1})
    ten = await seconds_of(client, network_id, dataset_id, FINETUNE | {"epochs": 10})
    cut = await seconds_of(client, network_id, dataset_id, FINETUNE | {"epochs": 10, "max_steps": 1})
    assert plain["typical"] < cut["typical"] < one["typical"] < ten["typical"]
    training = ten["typical"] - plain["typical"]
    assert training == pytest.approx(10 * (one["typical"] - plain["typical"]), rel=0.1)
    # 10 epochs over 75 % of 1797 rows of 20 million weights, 6 operations each, at 2e10 a second, and 3 ms a batch.
    assert training == pytest.approx(13_478 * 120e6 / 2e10 + 422 * 0.003, rel=0.01)
    change(database, builders.DatasetRecord, dataset_id, {"rows": 17_970})
    more = await seconds_of(client, network_id, dataset_id, FINETUNE | {"epochs": 1})
    assert more["typical"] - plain["typical"] == pytest.approx(training, rel=0.1)


async def test_estimates_of_a_distillation_go_by_the_student_and_count_the_teacher(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    change(database, ModelRecord, student_id, {"parameters": 1_000}, size_bytes=4_000)
    body = {"model": model_id, "data": {"train": dataset_id}, "recipe": [PRUNE, DISTILL | {"student": student_id}]}
    small = (await client.post("/v1/jobs/estimate", json=body)).json()
    assert small["size_bytes"]["typical"] == 4_000
    change(database, ModelRecord, model_id, {"parameters": 50_000_000})
    assert (await client.post("/v1/jobs/estimate", json=body)).json()["seconds"]["typical"] > small["seconds"][
        "typical"
    ]


async def test_what_another_student_came_to_says_nothing_about_this_one(
    client: httpx.AsyncClient, model_id: str, student_id: str, dataset_id: str, database: Database
) -> None:
    body = {"model": model_id, "data": {"train": dataset_id}, "recipe": [DISTILL | {"student": student_id}]}
    before = (await client.post("/v1/jobs/estimate", json=body)).json()
    succeed(database, (await client.post("/v1/jobs", json=body)).json()["id"])
    after = (await client.post("/v1/jobs/estimate", json=body)).json()
    assert after["basis"]["similar_jobs"] == 1
    assert (after["size_bytes"], after["seconds"]) == (before["size_bytes"], before["seconds"])


async def test_training_needs_memory_besides_the_model(
    client: httpx.AsyncClient, network_id: str, dataset_id: str
) -> None:
    memory = []
    for step in (PRUNE, FINETUNE):
        body = {"model": network_id, "data": {"train": dataset_id}, "recipe": [step]}
        memory.append((await client.post("/v1/jobs/estimate", json=body)).json()["peak_memory_bytes"])
    assert all(memory[1][bound] > memory[0][bound] for bound in ("low", "typical", "high"))
