import json

import pytest

from app.client import errors
from app.client.client import Client
from app.client.events import Message, parse
from tests.client.conftest import Script, answer, hang_up


def event(sequence: int, kind: str) -> dict[str, object]:
    return {
        "id": f"evt_{sequence}",
        "object": "event",
        "type": kind,
        "job": "job_1",
        "sequence": sequence,
        "created_at": "2026-11-24T00:00:00Z",
        "data": {},
    }


def stream(*events: dict[str, object], tail: str = "") -> bytes:
    messages = (f"id: {entry['id']}\nevent: {entry['type']}\ndata: {json.dumps(entry)}\n\n" for entry in events)
    return ("".join(messages) + tail).encode()


SSE = {"Content_Type": "text/event-stream"}


def test_messages_are_parsed_as_the_standard_says() -> None:
    lines = [": comment", "id: 1", "data: a", "data:b", "", "event: tick", "data", "", "retry: 5", "", "data: lost"]
    assert list(parse(lines)) == [Message("1", "message", "a\nb"), Message("1", "tick", "")]


def test_a_stream_that_breaks_is_resumed_after_the_last_event_seen(client: Client, script: Script) -> None:
    cut = "id: evt_3\ndata: {half"
    script.then(
        answer(200, stream(event(1, "job.created"), event(2, "job.started"), tail=cut), **SSE),
        hang_up,
        answer(200, stream(event(3, "job.progress"), event(4, "job.succeeded")), **SSE),
    )
    assert [found.sequence for found in client.jobs.events("job_1")] == [1, 2, 3, 4]
    assert "last-event-id" not in script.seen[0].headers
    assert [request.headers["last-event-id"] for request in script.seen[1:]] == ["evt_2", "evt_2"]


def test_a_caller_can_start_behind_an_event(client: Client, script: Script) -> None:
    script.then(answer(200, stream(event(8, "job.failed")), **SSE))
    assert [found.type for found in client.jobs.events("job_1", after="evt_7")] == ["job.failed"]
    assert script.seen[0].headers["last-event-id"] == "evt_7"


def test_a_stream_that_keeps_ending_is_given_up(client: Client, script: Script) -> None:
    script.then(*[answer(200, b": hello\n\n", **SSE)] * 3)
    with pytest.raises(errors.ConnectionFailed):
        list(client.jobs.events("job_1"))


def test_a_missing_job_is_a_problem_and_no_broken_stream(client: Client, script: Script) -> None:
    script.then(answer(404, b'{"code": "not_found"}'))
    with pytest.raises(errors.NotFound):
        list(client.jobs.events("job_1"))
