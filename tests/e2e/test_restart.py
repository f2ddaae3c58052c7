"""Stopping the service in the middle of a job and starting it again on the same folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import LiveService
from tests.trained import write_npz, write_onnx

pytestmark = pytest.mark.e2e

STOP_SECONDS = 15


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[LiveService]:
    with LiveService(tmp_path / "data") as running:
        yield running


def test_job_interrupted_by_a_stop_ends_once_after_the_start(own_service: LiveService, tmp_path: Path) -> None:
    service = own_service
    model = service.ready("model", write_onnx("mlp", tmp_path / "digits.onnx"))
    data = service.ready("dataset", write_npz("mlp", tmp_path / "test.npz"))
    request = {"data": {"evaluation": data["id"]}, "evaluation": {"repeats": 400}}
    job = service.submit(model["id"], [{"technique": "quantize"}], **request)
    with service.client.stream(
        "GET", f"/v1/jobs/{job['id']}/events", headers={"Accept": "text/event-stream"}
    ) as response:
        for line in response.iter_lines():
            if line.startswith("event: job.started"):
                break

    assert service.stop() < STOP_SECONDS
    service.start()
    done = service.finished(job["id"])

    assert done["status"] == "succeeded", done["error"]
    story = service.client.get(f"/v1/jobs/{job['id']}/events", params={"limit": 100}).json()["data"]
    types = [event["type"] for event in story]
    assert [event["sequence"] for event in story] == list(range(1, len(story) + 1))
    assert types.count("job.succeeded") == 1
    assert types[-1] == "job.succeeded"
    assert "job.requeued" in types
    assert types.count("job.started") == 2
    assert len([found for found in done["artifacts"] if found["kind"] == "model"]) == 1
