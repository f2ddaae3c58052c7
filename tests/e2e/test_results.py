"""Reading what a job left: reports, events, layers, comparisons, logs and bytes."""

import json
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Digits
from tests.live import LiveService

pytestmark = pytest.mark.e2e


def parsed_stream(text: str) -> list[dict[str, Any]]:
    """Events of an SSE body, each with the ``id`` it came under."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append({"stream_id": fields["id"], "stream_type": fields.get("event"), **json.loads(fields["data"])})
    return found


def stream(service: LiveService, job: str, **headers: str) -> list[dict[str, Any]]:
    response = service.client.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream", **headers})
    assert response.headers["content-type"].startswith("text/event-stream")
    return parsed_stream(response.text)


def events(service: LiveService, job: str) -> list[dict[str, Any]]:
    page = service.client.get(f"/v1/jobs/{job}/events", params={"limit": 100}).raise_for_status().json()
    found: list[dict[str, Any]] = page["data"]
    return found


def test_events_count_without_gaps_and_tell_the_story(service: LiveService, quantized: dict[str, Any]) -> None:
    story = events(service, quantized["id"])

    assert [event["sequence"] for event in story] == list(range(1, len(story) + 1))
    types = [event["type"] for event in story]
    assert types[:3] == ["job.created", "job.queued", "job.started"]
    assert types[-1] == "job.succeeded"
    assert types.count("job.succeeded") == 1
    assert "job.step_completed" in types
    assert {event["job"] for event in story} == {quantized["id"]}


def test_stream_replays_and_resumes(service: LiveService, quantized: dict[str, Any]) -> None:
    whole = stream(service, quantized["id"])
    resumed = stream(service, quantized["id"], **{"Last-Event-ID": whole[2]["id"]})

    assert [event["stream_id"] for event in whole] == [event["id"] for event in events(service, quantized["id"])]
    assert [event["sequence"] for event in resumed] == [event["sequence"] for event in whole[3:]]


def test_stream_follows_a_running_job_to_its_end(service: LiveService, digits: Digits) -> None:
    recipe = [{"technique": "quantize"}]
    job = service.submit(digits.model["id"], recipe, data={"evaluation": digits.test["id"]})

    live = stream(service, job["id"])

    assert [event["sequence"] for event in live] == list(range(1, len(live) + 1))
    assert live[-1]["type"] == "job.succeeded"


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/markdown"])
def test_report_comes_in_the_form_asked_for(kind: str, service: LiveService, quantized: dict[str, Any]) -> None:
    response = service.client.get(f"/v1/jobs/{quantized['id']}/report", headers={"Accept": kind})

    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"].startswith(kind)
    artifact = next(found for found in quantized["artifacts"] if found["kind"] == "model")
    assert artifact["sha256"] in response.text
    if kind == "application/json":
        assert response.json()["metrics"] == quantized["metrics"] or (
            response.json()["metrics"]["compressed"]["size_bytes"] == artifact["size_bytes"]
        )


def test_report_in_no_form_we_have_is_406(service: LiveService, quantized: dict[str, Any]) -> None:
    response = service.client.get(f"/v1/jobs/{quantized['id']}/report", headers={"Accept": "application/pdf"})

    assert response.status_code == httpx.codes.NOT_ACCEPTABLE
    assert response.headers["content-type"] == "application/problem+json"


def test_layers_account_for_the_bytes(service: LiveService, quantized: dict[str, Any]) -> None:
    page = service.client.get(f"/v1/jobs/{quantized['id']}/layers", params={"limit": 100}).raise_for_status().json()

    layers = [layer for layer in page["data"] if layer["parameters"] > 1000]
    assert len(layers) == 3
    for layer in layers:
        assert layer["bytes_before"] == 4 * layer["parameters"] or layer["bytes_before"] > 3.9 * layer["parameters"]
        assert layer["bytes_after"] < 0.3 * layer["bytes_before"]
        assert 8 <= layer["bits"] < 9
        assert layer["sqnr_db"] > 30


def test_comparison_shows_jobs_side_by_side(service: LiveService, digits: Digits, quantized: dict[str, Any]) -> None:
    other = service.succeeded(digits.model["id"], [{"technique": "quantize", "method": "float16"}])

    query = [("job", quantized["id"]), ("job", other["id"])]
    text = service.client.get("/v1/comparisons", params=query).raise_for_status().text

    assert quantized["id"] in text
    assert other["id"] in text
    assert "size_bytes" in text


def test_logs_are_plain_text(service: LiveService, quantized: dict[str, Any]) -> None:
    response = service.client.get(f"/v1/jobs/{quantized['id']}/logs")

    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"].startswith("text/plain")


def test_tensors_of_the_model_are_described(service: LiveService, digits: Digits) -> None:
    path = f"/v1/models/{digits.model['id']}/tensors"
    page = service.client.get(path, params={"limit": 100}).raise_for_status().json()

    weights = [tensor for tensor in page["data"] if len(tensor["shape"]) == 2]
    assert sum(tensor["shape"][0] * tensor["shape"][1] for tensor in weights) == 64 * 256 + 256 * 128 + 128 * 10
    for tensor in weights:
        assert tensor["min"] <= tensor["mean"] <= tensor["max"]
        assert sum(tensor["histogram"]) > 0


def content(quantized: dict[str, Any]) -> str:
    artifact = next(found for found in quantized["artifacts"] if found["kind"] == "model")
    return f"/v1/artifacts/{artifact['id']}/content"


def test_ranges_put_together_are_the_file(service: LiveService, quantized: dict[str, Any]) -> None:
    path = content(quantized)
    whole = service.client.get(path)
    first = service.client.get(path, headers={"Range": "bytes=0-999"})
    rest = service.client.get(path, headers={"Range": "bytes=1000-", "If-Range": whole.headers["etag"]})
    last = service.client.get(path, headers={"Range": "bytes=-10"})

    assert first.status_code == rest.status_code == httpx.codes.PARTIAL_CONTENT
    assert first.headers["content-range"] == f"bytes 0-999/{len(whole.content)}"
    assert first.content + rest.content == whole.content
    assert last.content == whole.content[-10:]
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "attachment" in whole.headers["content-disposition"]


def test_range_on_another_version_gives_the_whole_file(service: LiveService, quantized: dict[str, Any]) -> None:
    response = service.client.get(content(quantized), headers={"Range": "bytes=0-9", "If-Range": '"another"'})

    assert response.status_code == httpx.codes.OK
    assert len(response.content) > 10


def test_range_beyond_the_file_is_416(service: LiveService, quantized: dict[str, Any]) -> None:
    response = service.client.get(content(quantized), headers={"Range": "bytes=999999999-"})

    assert response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE
    assert response.headers["content-range"].startswith("bytes */")
    assert response.json()["code"] == "range_not_satisfiable"


def test_unchanged_file_is_304(service: LiveService, quantized: dict[str, Any]) -> None:
    etag = service.client.get(content(quantized)).headers["etag"]

    response = service.client.get(content(quantized), headers={"If-None-Match": etag})

    assert response.status_code == httpx.codes.NOT_MODIFIED
    assert response.content == b""


def test_model_content_is_what_was_uploaded(service: LiveService, digits: Digits) -> None:
    response = service.client.get(f"/v1/models/{digits.model['id']}/content")

    assert response.content == digits.onnx.read_bytes()
