"""Puts the figures of several jobs side by side."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.comparisons.schemas import ComparedJob, ComparedMetric, JobComparison
from app.jobs import service as jobs_service
from app.jobs.records import JobRecord
from workers.compression.specs.metrics import HIGHER_IS_BETTER

HIGHER = HIGHER_IS_BETTER | {"throughput_per_s", "fidelity.cosine", "fidelity.sqnr_db", "fidelity.top1_agreement"}
NOT_COMPARED = frozenset({"intervals"})

Figures = dict[str, int | float]


def compare(session: Session, project_id: str, job_ids: Sequence[str]) -> JobComparison:
    """The jobs' figures, one row per metric; a job without metrics has empty cells."""
    jobs = [jobs_service.get(session, project_id, job_id) for job_id in dict.fromkeys(job_ids)]
    original = [_figures(job, "original") for job in jobs]
    compressed = [_figures(job, "compressed") for job in jobs]
    names = dict.fromkeys(name for side in (*original, *compressed) for name in side)
    return JobComparison(
        jobs=[_compared_job(job) for job in jobs],
        metrics=[_row(name, jobs, original, compressed) for name in names],
    )


def _compared_job(job: JobRecord) -> ComparedJob:
    return ComparedJob(
        id=job.id,
        model=job.spec["model"],
        status=job.status,
        outcome=job.outcome,
        recipe=job.spec["recipe"],
        labels=job.labels,
    )


def _figures(job: JobRecord, side: str) -> Figures:
    return _flatten((job.metrics or {}).get(side, {}))


def _flatten(figures: dict[str, Any], prefix: str = "") -> Figures:
    """``{"latency_ms": {"1": {"p50": 2.0}}}`` becomes ``{"latency_ms.1.p50": 2.0}``."""
    flat: Figures = {}
    for name, value in figures.items():
        if isinstance(value, dict) and name not in NOT_COMPARED:
            flat |= _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[prefix + name] = value
    return flat


def _row(
    name: str, jobs: Sequence[JobRecord], original: Sequence[Figures], compressed: Sequence[Figures]
) -> ComparedMetric:
    better: Literal["higher", "lower"] = "higher" if name in HIGHER else "lower"
    values = {job.id: side[name] for job, side in zip(jobs, compressed, strict=True) if name in side}
    choose = max if better == "higher" else min
    return ComparedMetric(
        name=name,
        original=[side.get(name) for side in original],
        compressed=[side.get(name) for side in compressed],
        better=better,
        best=choose(values, key=lambda job_id: values[job_id]) if values else None,
    )
