"""``pressroom up``: the whole service in the foreground."""

import fcntl
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.panel import Panel

from app.cli import service
from app.cli.migrate import prepare
from app.cli.output import Exit, err, fail
from app.cli.supervision import Supervisor, describe_exit
from app.client.client import Client
from app.config import Settings

LOOK_SECONDS = 0.1
READY_SECONDS = 120.0
# Twice at most (Redis stops after the rest): within the 15 s that a stop may take.
STOP_GRACE_SECONDS = 6.0


def up(
    host: Annotated[str | None, typer.Option(help="Address to bind; PRESSROOM_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind, 0 for a free one; PRESSROOM_PORT, else 8000.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for everything that lasts.")] = None,
) -> None:
    """Starts API, workers, sweeper and embedded Redis; Ctrl-C stops them all."""
    settings = _settings(host, port, data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.data_dir), _stop_signals() as stopping:
        _check_port(settings)
        supervisor = Supervisor(service.environment(settings), lambda line: err.print(f"[yellow]{escape(line)}[/]"))
        try:
            if settings.redis_url is None:
                supervisor.start(service.redis_part(settings.data_dir))
            prepare(supervisor.environment, "--serve")
            _start_parts(supervisor, settings)
            _watch(supervisor, settings, stopping)
        except (service.MissingRedis, PermissionError) as failure:
            fail(str(failure))
        finally:
            supervisor.stop(STOP_GRACE_SECONDS)
    err.print("stopped")


def _settings(host: str | None, port: int | None, data_dir: Path | None) -> Settings:
    given = {"host": host, "port": port, "data_dir": data_dir}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]  # each has its field's type
    except ValidationError as invalid:
        first = invalid.errors()[0]
        fail(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}", code=Exit.USAGE)
    if settings.port == 0:
        with socket.create_server((settings.host, 0)) as probe:
            return settings.model_copy(update={"port": probe.getsockname()[1]})
    return settings


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Two services on one folder would steal each other's Redis socket."""
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(f"another service is running on {data_dir}", hint="stop it, or give another --data-dir")
        yield


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as failure:
        fail(f"cannot bind {settings.host}:{settings.port}: {failure.strerror}", hint="choose another --port")


def _start_parts(supervisor: Supervisor, settings: Settings) -> None:
    supervisor.start(service.api_part(settings))
    supervisor.start(service.sweeper_part())
    missing = service.missing_worker_libraries()
    if missing:
        err.print(
            f"[yellow]no worker here:[/] {', '.join(missing)} not installed; uploads and jobs wait for a worker "
            "elsewhere. Install one with: pip install 'pressroom\\[worker]'"
        )
        return
    for part in service.worker_parts(settings):
        supervisor.start(part)


def _watch(supervisor: Supervisor, settings: Settings, stopping: threading.Event) -> None:
    """Keeps the parts until a stop signal; before the first readiness a dead API is fatal, for it will not recover."""
    started, ready = time.monotonic(), False
    address = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104 - compared, not bound
    with Client(f"http://{f'[{address}]' if ':' in address else address}:{settings.port}") as client:
        while not stopping.wait(LOOK_SECONDS):
            if not ready:
                status = supervisor.exit_status("api")
                if status is not None:
                    fail(f"the API {describe_exit(status)} before it was ready")
                if client.ready():
                    ready = True
                    _banner(settings, client.base_url, time.monotonic() - started)
                elif time.monotonic() - started > READY_SECONDS:
                    fail(f"not ready after {READY_SECONDS:g} s", hint=f"see {client.base_url}/readyz")
            supervisor.keep()


def _banner(settings: Settings, url: str, seconds: float) -> None:
    lines = (
        f"[bold]Pressroom {version('pressroom')}[/] is ready after {seconds:.1f} s",
        f"dashboard  {url}/",
        f"API        {url}/v1, described at {url}/docs",
        f"data       {escape(str(settings.data_dir.absolute()))}",
        "Ctrl-C stops it",
    )
    err.print(Panel("\n".join(lines), border_style="green", expand=False))
