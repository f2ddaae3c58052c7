"""What is shown of workers, and which targets they offer."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from app.config import Settings
from app.jobs import reading
from app.pagination import ListPage, Page, list_page, split_page
from app.workers_registry import repository
from app.workers_registry.records import WorkerRecord
from app.workers_registry.schemas import TargetRead, WorkerRead

HAS: dict[str, Callable[[frozenset[str]], bool]] = {
    "auto": lambda _: True,
    "cpu-avx2": lambda flags: "avx2" in flags,
    "cpu-vnni": lambda flags: bool(flags & {"avx512_vnni", "avx_vnni"}),
    "cpu-arm64": lambda flags: bool(flags & {"asimd", "asimddp"}),
}
SUMMARIES = {
    "auto": "The CPU of the worker that takes the job",
    "cpu-avx2": "x86-64 with AVX2, without VNNI: 8-bit products saturate unless the range is reduced",
    "cpu-vnni": "x86-64 with AVX-512 VNNI or AVX-VNNI: exact 8-bit products",
    "cpu-arm64": "64-bit ARM with 8-bit dot products",
}
RUNTIMES = ["onnxruntime", "torch", "scikit-learn"]


def workers(session: Session, project_id: str, settings: Settings, page: Page) -> ListPage[WorkerRead]:
    """Workers, newest first."""
    rows, has_more = split_page(repository.list_page(session, page), page)
    now = repository.now(session)
    running = reading.running_by_worker(session, project_id, [worker.id for worker in rows])
    shown = [_worker_read(worker, running.get(worker.id, []), now - settings.lease_seconds) for worker in rows]
    return list_page(shown, has_more=has_more)


def _worker_read(worker: WorkerRecord, running: list[str], silent_since: float) -> WorkerRead:
    return WorkerRead(
        id=worker.id,
        status="stopped" if worker.stopped_at else "online" if worker.seen_at > silent_since else "lost",
        hostname=worker.hostname,
        pid=worker.pid,
        capability=worker.capability,
        concurrency=worker.concurrency,
        hardware=worker.hardware,
        sandbox=worker.sandbox,
        versions=worker.versions,
        running=running,
        started_at=worker.started_at,
        seen_at=repository.as_time(worker.seen_at),
        stopped_at=worker.stopped_at,
    )


def targets(session: Session, settings: Settings) -> list[TargetRead]:
    """Every target a job can name, and which workers can measure on it."""
    present = [worker for worker in repository.present(session, settings.lease_seconds) if worker.capability == "cpu"]
    return [_target_read(hardware, present, settings.price_per_hour) for hardware in HAS]


def _target_read(hardware: str, present: list[WorkerRecord], price_per_hour: float) -> TargetRead:
    having = [worker.id for worker in present if HAS[hardware](_flags(worker))]
    return TargetRead(
        hardware=hardware,
        summary=SUMMARIES[hardware],
        runtimes=RUNTIMES,
        available=bool(having),
        workers=having,
        price_per_hour=price_per_hour,
    )


def _flags(worker: WorkerRecord) -> frozenset[str]:
    flags = worker.hardware.get("instruction_sets")
    return frozenset(flags) if isinstance(flags, list) else frozenset()
