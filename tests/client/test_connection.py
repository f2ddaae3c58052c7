import json

import httpx
import pytest

from app.client import errors
from app.client.client import Client
from app.client.connection import backoff_seconds
from tests.client.conftest import Script, answer, broken, hang_up

JOB = {
    "id": "job_1",
    "object": "job",
    "status": "queued",
    "done": False,
    "spec": {},
    "created_at": "2026-11-24T00:00:00Z",
}


def job(**changes: object) -> bytes:
    return json.dumps(JOB | changes).encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (413, errors.Refused),
        (415, errors.Refused),
        (422, errors.Refused),
        (429, errors.RateLimited),
        (500, errors.ServiceFailed),
        (418, errors.Problem),
    ],
)
def test_each_status_raises_its_own_error_with_the_problem_inside(
    client: Client, script: Script, status: int, kind: type[errors.Problem]
) -> None:
    problem = {
        "code": "invalid_spec",
        "detail": "bits must be 8",
        "reason": "bits",
        "request_id": "req_1",
        "errors": [{"pointer": "/recipe/0/bits", "detail": "not 8"}],
    }
    body = json.dumps(problem).encode()
    script.then(*[answer(status, body, Content_Type="application/problem+json")] * 3)
    with pytest.raises(kind) as raised:
        client.jobs.get("job_1")
    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.code, raised.value.reason) == (status, "invalid_spec", "bits")
    assert raised.value.errors == (errors.FieldError("/recipe/0/bits", "not 8"),)
    assert raised.value.request_id == "req_1"


def test_an_error_page_of_a_proxy_is_still_a_problem(client: Client, script: Script) -> None:
    script.then(*[answer(502, b"<html>bad gateway", Content_Type="text/html")] * 3)
    with pytest.raises(errors.ServiceFailed, match="bad gateway"):
        client.jobs.get("job_1")


def test_a_post_is_repeated_with_the_same_idempotency_key(client: Client, script: Script) -> None:
    script.then(hang_up, answer(503), answer(202, job()))
    assert client.jobs.submit({"model": "mdl_1", "recipe": [{"technique": "quantize"}]}).id == "job_1"
    keys = {request.headers["idempotency-key"] for request in script.seen}
    assert len(script.seen) == 3
    assert len(keys) == 1


def test_two_posts_have_different_idempotency_keys(client: Client, script: Script) -> None:
    script.then(answer(202, job()), answer(202, job()))
    client.jobs.submit({})
    client.jobs.submit({})
    assert len({request.headers["idempotency-key"] for request in script.seen}) == 2


def test_a_refusal_is_not_repeated(client: Client, script: Script) -> None:
    script.then(answer(422))
    with pytest.raises(errors.Refused):
        client.jobs.submit({})
    assert len(script.seen) == 1


def test_a_service_that_never_answers_ends_as_connection_failed(client: Client, script: Script) -> None:
    script.then(hang_up, hang_up, hang_up)
    with pytest.raises(errors.ConnectionFailed, match=script.url):
        client.jobs.get("job_1")
    assert len(script.seen) == 3


def test_a_broken_answer_is_fetched_again(client: Client, script: Script) -> None:
    whole = job(status="running")
    script.then(broken(200, whole[:10], len(whole)), answer(200, whole))
    assert client.jobs.get("job_1").status == "running"


def test_the_pause_is_what_the_service_asked_for_and_bounded() -> None:
    assert backoff_seconds(0, httpx.Response(503, headers={"retry-after": "3"})) == 3.0
    assert backoff_seconds(0, httpx.Response(503, headers={"retry-after": "3600"})) == 10.0
    assert all(backoff_seconds(attempt) <= 10.0 for attempt in range(100))


def test_the_key_is_sent_as_a_bearer_token(script: Script) -> None:
    script.then(answer(200, job()))
    with Client(script.url, api_key="prk_x") as client:
        client.jobs.get("job_1")
    assert script.seen[0].headers["authorization"] == "Bearer prk_x"


def test_a_list_is_followed_to_its_last_page(client: Client, script: Script) -> None:
    pages = [
        {"data": [JOB | {"id": "job_3"}, JOB | {"id": "job_2"}], "has_more": True, "next": "job_2"},
        {"data": [JOB], "has_more": False, "next": None},
    ]
    script.then(*(answer(200, json.dumps(page).encode()) for page in pages))
    assert [found.id for found in client.jobs.list(status="queued")] == ["job_3", "job_2", "job_1"]
    assert script.seen[0].path == "/v1/jobs?limit=100&status=queued"
    assert script.seen[1].path == "/v1/jobs?limit=100&status=queued&after=job_2"


def test_waiting_raises_for_a_failed_job_and_names_the_cause(client: Client, script: Script) -> None:
    failed = job(status="failed", done=True, error={"code": "crashed", "detail": "the child died"})
    script.then(answer(200, job(status="running")), answer(200, failed), answer(200, failed))
    with pytest.raises(errors.JobUnsuccessful, match="crashed: the child died"):
        client.jobs.wait("job_1")
    assert script.seen[0].headers["prefer"] == "wait=30"
    assert client.jobs.wait("job_1", check=False).status == "failed"


def test_waiting_gives_up_after_its_timeout(client: Client, script: Script) -> None:
    script.then(answer(200, job(status="running")))
    with pytest.raises(errors.WaitTimeout):
        client.jobs.wait("job_1", timeout_seconds=0.0)
