"""One job: claim it, run its children, end it in one fenced transaction."""

import logging
import os
import time

from sqlalchemy.orm import Session

from app.jobs import leases, repository
from app.jobs.fence import LeaseLost
from app.jobs.records import JobRecord
from workers.analyze_job import analyze
from workers.child import StopReason
from workers.compress_job import compress
from workers.compression.specs.errors import Code, EngineError
from workers.compression.specs.messages import Failure
from workers.conclusion import Conclusion, cancelled, failed
from workers.inspect_job import inspect_dataset, inspect_model, rejected
from workers.lease import Lease
from workers.stage import Limits, Stages, failure_of, scratch_folder
from workers.workplace import Failed, Stopped, Workplace

_WORK = {
    repository.COMPRESS: compress,
    repository.ANALYZE: analyze,
    "inspect_model": inspect_model,
    "inspect_dataset": inspect_dataset,
}
# The time limit of a job is kept by the clock on the wall; CPU time only stops a child that nobody watches any more.
_CPU_ROOM_SECONDS = 60
# Reasons that use up the attempt, as the job's story tells them; a worker that stops gives it back.
_REQUEUED: dict[StopReason, str] = {"retry": "storage_unavailable", "killed": "worker_lost"}

_log = logging.getLogger(__name__)


def run_next(workplace: Workplace, capability: str) -> JobRecord | None:
    """Claims the best waiting job of a capability and runs it to its end.

    Returns:
        The job as it was claimed, None if there was nothing to do.
    """
    if workplace.stopping.is_set():
        return None
    claimed_at = time.monotonic()
    with workplace.database.transaction() as session:
        job = leases.claim(session, capability, workplace.worker_id, workplace.settings.lease_seconds)
    if job is not None:
        run_claimed(workplace, job, claimed_at)
    return job


def run_claimed(workplace: Workplace, job: JobRecord, claimed_at: float) -> None:
    """Runs a job that this worker holds.

    Args:
        claimed_at: ``time.monotonic()`` from before the claim.
    """
    lease = Lease(workplace.database, job, workplace.settings, claimed_at, workplace.stopping)
    try:
        with lease, scratch_folder(workplace.settings.scratch_dir, job) as folder:
            conclusion = _work(Stages(workplace, lease, folder, _limits(workplace, job)), job)
        with workplace.database.transaction() as session:
            _conclude(session, job, lease, conclusion)
    except LeaseLost:
        _log.warning("the lease of %s (token %d) is lost; its work is dropped", job.id, job.token)
    except Stopped as stopped:
        _stop(workplace, job, lease, stopped)


def _work(stages: Stages, job: JobRecord) -> Conclusion:
    """The job's conclusion, whatever happened; only ``Stopped`` with another reason than a time limit gets out."""
    try:
        return _WORK[job.kind](stages, job)
    except Stopped as stopped:
        if stopped.reason != "timeout":
            raise
        failure = Failure(
            code=Code.TIMEOUT,
            detail=f"The job ran longer than its {job.timeout_seconds:g} seconds.",
            hint="Raise execution.timeout_seconds, or use a smaller model or fewer evaluation rows.",
        )
    except Failed as failed_stage:
        failure = failed_stage.failure
        if failure.code == Code.WORKER_LOST and job.kind in repository.SHOWN and job.attempt < job.max_attempts:
            stages.lease.story.add_log(f"{failure.detail} The job is tried again.")
            raise Stopped("killed") from failed_stage
    except EngineError as error:
        if error.retryable and job.attempt < job.max_attempts:
            # The lease is renewed meanwhile; whatever did not answer gets a moment to recover.
            stages.workplace.stopping.wait(2.0**job.attempt)
            raise Stopped("retry") from error
        failure = failure_of(error, "supervise")
    except Exception:  # noqa: BLE001 - a fault of ours has to end the job, not to leave it to the sweeper again and again
        _log.exception("the supervisor failed on %s", job.id)
        failure = Failure(code=Code.INTERNAL, detail="The service failed; its operator finds the reason in the log.")
    return failed(failure) if job.kind in repository.SHOWN else rejected(failure)


def _limits(workplace: Workplace, job: JobRecord) -> Limits:
    settings = workplace.settings
    if job.kind in repository.SHOWN:
        cpu_seconds = int(job.timeout_seconds * (os.cpu_count() or 1)) + _CPU_ROOM_SECONDS
        return Limits(settings.child_memory_bytes, cpu_seconds)
    return Limits(settings.inspection_memory_bytes, settings.inspection_cpu_seconds)


def _conclude(session: Session, job: JobRecord, lease: Lease, conclusion: Conclusion) -> None:
    # The first write is fenced and locks the job's row: if it is lost, nothing after it comes to be.
    lease.write_story(session, last=True)
    ended = leases.finish(session, job.id, job.token, conclusion.state, log=lease.story.log, **conclusion.changes)
    conclusion.write(session, ended)


def _stop(workplace: Workplace, job: JobRecord, lease: Lease, stopped: Stopped) -> None:
    if stopped.reason == "lost":
        return
    try:
        with workplace.database.transaction() as session:
            if stopped.reason == "cancelled" or leases.standing(session, job.id, job.token) == "cancelling":
                _conclude(session, job, lease, cancelled())
            else:
                lease.write_story(session, last=True)
                reason = _REQUEUED.get(stopped.reason, "worker_stopped")
                leases.requeue(session, job.id, job.token, reason, refund=stopped.reason not in _REQUEUED)
    except LeaseLost:
        _log.warning("%s was %s, but its lease is lost", job.id, stopped.reason)
