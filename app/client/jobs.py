"""Jobs of the service."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from app.client.connection import Connection, backoff_seconds
from app.client.errors import ConnectionFailed, JobUnsuccessful, WaitTimeout
from app.client.events import parse
from app.client.objects import Artifact, Event, Job
from app.client.pages import pages

LONGEST_WAIT_SECONDS = 30
# The service sends a comment every 15 s: silence for three times as long means that the connection is dead.
SILENCE_SECONDS = 45.0


class Jobs:
    """Submit, follow, cancel and list jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Queues a job; ``spec`` is the body of ``POST /v1/jobs``: ``model``, ``recipe``, ``data`` and so on."""
        return Job.model_validate(self._connection.post("/v1/jobs", dict(spec), idempotency_key=idempotency_key))

    def validate(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The resolved plan of a job, without creating it."""
        return dict(self._connection.post("/v1/jobs/validate", dict(spec)))

    def estimate(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Bands of time, memory and artifact size of a job, without creating it."""
        return dict(self._connection.post("/v1/jobs/estimate", dict(spec)))

    def get(self, job_id: str, *, wait_seconds: int = 0) -> Job:
        """One job; with ``wait_seconds`` the service answers late, or as soon as the job is done."""
        headers = {"Prefer": f"wait={wait_seconds}"} if wait_seconds else None
        return Job.model_validate(self._connection.get(f"/v1/jobs/{job_id}", headers=headers))

    def list(self, **filters: Any) -> Iterator[Job]:
        """All jobs, newest first, fetched page by page; filters as in the API, such as ``status="failed"``."""
        return pages(self._connection, "/v1/jobs", Job, filters)

    def wait(self, job_id: str, *, timeout_seconds: float | None = None, check: bool = True) -> Job:
        """The job once it is done.

        Args:
            job_id: Which job.
            timeout_seconds: How long to wait at most; the job itself goes on.
            check: Whether a failed or cancelled job raises.

        Raises:
            JobUnsuccessful: It failed or was cancelled, and ``check`` is set.
            WaitTimeout: It is not done after ``timeout_seconds``.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = LONGEST_WAIT_SECONDS if deadline is None else deadline - time.monotonic()
            job = self.get(job_id, wait_seconds=max(1, min(LONGEST_WAIT_SECONDS, int(left))))
            if job.done:
                break
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(f"{job_id} is still {job.status} after {timeout_seconds:g} s")
        if check and job.status != "succeeded":
            raise JobUnsuccessful(job.id, job.status, job.error)
        return job

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """The job's events as they happen, up to the terminal one; a broken connection is resumed without a gap.

        Args:
            job_id: Which job.
            after: Only events after the one with this identifier.
        """
        failures = 0
        while True:
            try:
                for event in self._stream(job_id, after):
                    after, failures = event.id, 0
                    yield event
                    if event.terminal:
                        return
            except httpx.TransportError as failure:
                if failures == self._connection.retries:
                    raise ConnectionFailed(f"lost the event stream of {job_id}: {failure}") from failure
            # A stream may also end without the terminal event: the service restarts, or dropped a slow reader.
            failures += 1
            if failures > self._connection.retries:
                raise ConnectionFailed(f"the event stream of {job_id} keeps ending early")
            time.sleep(backoff_seconds(failures))

    def cancel(self, job_id: str) -> Job:
        """Asks for the job's end; repeating it does no harm."""
        return Job.model_validate(self._connection.post(f"/v1/jobs/{job_id}/cancel"))

    def retry(self, job_id: str) -> Job:
        """A new job with the same spec."""
        return Job.model_validate(self._connection.post(f"/v1/jobs/{job_id}/retry"))

    def delete(self, job_id: str) -> None:
        """Deletes a finished job with its artifacts."""
        self._connection.request("DELETE", f"/v1/jobs/{job_id}")

    def artifacts(self, job_id: str) -> tuple[Artifact, ...]:
        """What the job made."""
        return tuple(pages(self._connection, f"/v1/jobs/{job_id}/artifacts", Artifact, {}))

    def report(self, job_id: str, media_type: str = "application/json") -> str:
        """The full report as text; ``text/html`` and ``text/markdown`` are there too."""
        return self._connection.request("GET", f"/v1/jobs/{job_id}/report", headers={"Accept": media_type}).text

    def logs(self, job_id: str) -> str:
        """The engine's log lines."""
        return self._connection.request("GET", f"/v1/jobs/{job_id}/logs").text

    def _stream(self, job_id: str, after: str | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        path = f"/v1/jobs/{job_id}/events"
        with self._connection.stream(path, headers=headers, read_seconds=SILENCE_SECONDS) as response:
            for message in parse(response.iter_lines()):
                yield Event.model_validate_json(message.data)
