"""The Celery worker: ``python -m workers.tasks CAPABILITY``.

The process is a thin supervisor that imports no machine-learning library; every job runs in a child of its own.
"""

import argparse
from typing import Any

from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down
from sqlalchemy.exc import SQLAlchemyError

from app import logs
from app.broker import RUN_JOB, Broker
from app.config import get_settings
from workers.supervisor import SandboxMissing, Supervisor

broker = Broker(get_settings().broker_url)
celery = broker.celery


class _Process:
    """The supervisor of this process, made once Celery has started."""

    capability = get_settings().capability
    supervisor: Supervisor


def run_job(_job_id: str) -> None:
    """A hint that work waits; which job is the best one now is for the database to say."""
    _Process.supervisor.run_next()


def _log(**_: Any) -> None:
    logs.configure(get_settings().log_format)


def _start(**_: Any) -> None:
    try:
        _Process.supervisor = Supervisor(get_settings(), broker, _Process.capability)
        _Process.supervisor.start()
    except (SandboxMissing, SQLAlchemyError) as error:
        # Celery only logs what a signal handler raises, and would go on without a supervisor.
        raise SystemExit(f"the worker cannot start: {error}") from error


def _stop(**_: Any) -> None:
    _Process.supervisor.stop()


def _close(**_: Any) -> None:
    _Process.supervisor.close()


celery.task(name=RUN_JOB)(run_job)
setup_logging.connect(_log)
worker_init.connect(_start)
worker_shutting_down.connect(_stop)
worker_shutdown.connect(_close)


def main() -> None:
    """Serves one queue until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m workers.tasks", description="Runs Pressroom jobs of a capability.")
    parser.add_argument("capability", nargs="?", default=get_settings().capability)
    _Process.capability = parser.parse_args().capability
    celery.worker_main(
        [
            *("--quiet", "worker", "--pool", "threads", "--concurrency", str(get_settings().worker_concurrency)),
            *("--queues", _Process.capability, "--hostname", f"{_Process.capability}@%h"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ]
    )


if __name__ == "__main__":
    main()
