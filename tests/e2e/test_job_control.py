"""Submitting once, waiting, cancelling, retrying, deleting."""

from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import Digits
from tests.live import LiveService

pytestmark = pytest.mark.e2e

RECIPE = [{"technique": "quantize", "method": "float16"}]
LONG = {"evaluation": {"repeats": 10_000, "batch_sizes": [1, 8, 64, 256]}}
"""Timed calls for many minutes: a job that is still running when it is cancelled."""


def post(service: LiveService, body: dict[str, Any], **headers: str) -> httpx.Response:
    return service.client.post("/v1/jobs", json=body, headers=headers)


def test_same_key_and_body_submit_one_job(service: LiveService, digits: Digits) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    body = {"model": digits.model["id"], "recipe": RECIPE}

    first, second = post(service, body, **key), post(service, body, **key)

    assert first.status_code == second.status_code == httpx.codes.ACCEPTED
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert second.headers["location"] == first.headers["location"]


def test_same_key_with_another_body_is_409(service: LiveService, digits: Digits) -> None:
    key = {"Idempotency-Key": str(uuid4())}
    post(service, {"model": digits.model["id"], "recipe": RECIPE}, **key)

    response = post(service, {"model": digits.model["id"], "recipe": RECIPE, "seed": 5}, **key)

    assert response.status_code == httpx.codes.CONFLICT
    assert response.json()["code"] == "idempotency_key_reused"


def test_same_bytes_again_are_the_same_model(service: LiveService, digits: Digits) -> None:
    response = service.upload("model", digits.onnx)

    assert response.status_code == httpx.codes.OK
    assert response.json()["id"] == digits.model["id"]


def test_waiting_answers_when_the_job_is_done(service: LiveService, digits: Digits) -> None:
    job = service.submit(digits.model["id"], RECIPE)

    response = service.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"})

    assert response.json()["done"] is True
    assert response.headers["preference-applied"] == "wait=60"


def test_waiting_answers_in_time_when_the_job_is_not_done(service: LiveService, digits: Digits) -> None:
    job = service.submit(digits.model["id"], RECIPE, **LONG)
    started = monotonic()

    response = service.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=1"})

    assert response.json()["done"] is False
    assert 0.9 < monotonic() - started < 10
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert service.finished(job["id"])["status"] == "cancelled"


def test_running_job_is_cancelled_within_seconds(service: LiveService, digits: Digits) -> None:
    job = service.submit(digits.model["id"], RECIPE, **LONG)
    wait_until_running(service, job["id"])
    started = monotonic()

    first = service.client.post(f"/v1/jobs/{job['id']}/cancel")
    again = service.client.post(f"/v1/jobs/{job['id']}/cancel")
    ended = service.finished(job["id"])

    assert first.status_code == httpx.codes.ACCEPTED
    assert first.json()["status"] in {"cancelling", "cancelled"}
    assert again.status_code in {httpx.codes.ACCEPTED, httpx.codes.CONFLICT}
    assert ended["status"] == "cancelled"
    assert ended["termination_reason"] == "cancel_requested"
    assert ended["artifacts"] == []
    assert monotonic() - started < 15
    late = service.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (late.status_code, late.json()["code"]) == (httpx.codes.CONFLICT, "job_finished")


def wait_until_running(service: LiveService, job_id: str) -> None:
    """Reads the live stream until the engine reports progress."""
    with service.client.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as response:
        for line in response.iter_lines():
            if line.startswith("event:") and line.split(": ")[1] in {"job.progress", "job.step_completed"}:
                return
    pytest.fail("the job ended before it could be cancelled")


def test_job_over_its_time_fails_as_timeout(service: LiveService, digits: Digits) -> None:
    request = LONG | {"execution": {"timeout_seconds": 6}}
    job = service.finished(service.submit(digits.model["id"], RECIPE, **request)["id"])

    assert job["status"] == "failed"
    assert job["error"]["code"] == "timeout"


def test_retry_runs_the_same_spec_as_a_new_job(service: LiveService, quantized: dict[str, Any]) -> None:
    response = service.client.post(f"/v1/jobs/{quantized['id']}/retry")

    assert response.status_code == httpx.codes.ACCEPTED
    again = service.finished(response.json()["id"])
    assert again["id"] != quantized["id"]
    assert again["spec"] == quantized["spec"]
    assert again["artifacts"][0]["sha256"] in {found["sha256"] for found in quantized["artifacts"]}


def test_deleting_waits_for_the_end_and_takes_the_artifacts_along(service: LiveService, digits: Digits) -> None:
    running = service.submit(digits.model["id"], RECIPE, **LONG)
    refused = service.client.delete(f"/v1/jobs/{running['id']}")
    in_use = service.client.delete(f"/v1/models/{digits.model['id']}")
    service.client.post(f"/v1/jobs/{running['id']}/cancel")
    service.finished(running["id"])
    done = service.succeeded(digits.model["id"], RECIPE)
    deleted = service.client.delete(f"/v1/jobs/{done['id']}")

    assert (refused.status_code, refused.json()["code"]) == (httpx.codes.CONFLICT, "job_not_finished")
    assert (in_use.status_code, in_use.json()["code"]) == (httpx.codes.CONFLICT, "in_use")
    assert deleted.status_code == httpx.codes.NO_CONTENT
    assert service.client.get(f"/v1/jobs/{done['id']}").status_code == httpx.codes.NOT_FOUND
    for artifact in done["artifacts"]:
        assert service.client.get(f"/v1/artifacts/{artifact['id']}").status_code == httpx.codes.NOT_FOUND


def test_list_finds_jobs_by_label_status_and_model(service: LiveService, digits: Digits) -> None:
    mark = uuid4().hex[:8]
    jobs = [service.submit(digits.model["id"], RECIPE, labels={"mark": mark, "n": str(n)})["id"] for n in range(3)]
    for job in jobs:
        service.finished(job)
    query = {"label.mark": mark, "model": digits.model["id"], "status": "succeeded", "limit": 2}

    first = service.client.get("/v1/jobs", params=query).raise_for_status().json()
    second = service.client.get("/v1/jobs", params=query | {"after": first["next"]}).raise_for_status().json()

    assert [job["id"] for job in first["data"] + second["data"]] == jobs[::-1]
    assert (first["has_more"], second["has_more"], second["next"]) == (True, False, None)


def test_job_on_a_model_still_being_inspected_waits_for_it(
    service: LiveService, digits: Digits, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(
        digits.onnx.read_bytes() + b"\x72\x03\x0a\x01n"
    )  # another metadata entry: other bytes, same model
    response = service.upload("model", changed)

    job = service.succeeded(response.json()["id"], RECIPE)

    assert response.status_code in {201, 202}
    assert job["status"] == "succeeded"


def test_validation_creates_nothing_and_names_conflicts(service: LiveService, digits: Digits) -> None:
    before = service.client.get("/v1/jobs", params={"limit": 1}).json()["data"]
    body = {"model": digits.model["id"], "recipe": [{"technique": "quantize"}, {"technique": "prune"}]}

    response = service.client.post("/v1/jobs/validate", json=body)

    assert service.client.get("/v1/jobs", params={"limit": 1}).json()["data"] == before
    if response.status_code == httpx.codes.OK:
        assert response.json()["conflicts"]
    else:
        assert response.json()["code"] == "incompatible_steps"
    assert post(service, body).status_code == httpx.codes.UNPROCESSABLE_ENTITY


def test_estimate_gives_bands(service: LiveService, digits: Digits) -> None:
    body = {"model": digits.model["id"], "recipe": RECIPE}

    estimate = service.client.post("/v1/jobs/estimate", json=body).raise_for_status().json()

    for figure in ("seconds", "peak_memory_bytes", "size_bytes"):
        assert 0 < estimate[figure]["low"] <= estimate[figure]["typical"] <= estimate[figure]["high"]
