"""The migrations make the tables that the records describe, on both databases."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect, text

from app.db import Database, DatabaseNow, utc_now
from app.records import Record
from migrations.run import configuration, is_current, upgrade


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a b%20c.db"
    server: str = request.getfixturevalue("postgres_url")
    admin = Database(server)
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text('DROP DATABASE IF EXISTS "scratch 1"'))
        connection.execute(text('CREATE DATABASE "scratch 1"'))
    admin.close()
    return server.replace("/postgres?", "/scratch%201?", 1)


def test_up_check_and_down(empty_url: str) -> None:
    upgrade(empty_url)
    upgrade(empty_url)
    command.check(configuration(empty_url))
    database = Database(empty_url)
    assert is_current(database)
    assert set(inspect(database.engine).get_table_names()) == {*Record.metadata.tables, "alembic_version"}
    command.downgrade(configuration(empty_url), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    assert not is_current(database)
    database.close()


def test_two_processes_may_migrate_at_once(empty_url: str) -> None:
    code = "import sys; from migrations.run import upgrade; upgrade(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", code, empty_url]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]


def test_the_databases_clock_is_the_time(any_database: Database) -> None:
    with any_database.reading() as session:
        assert abs(session.scalar(DatabaseNow().select()) - utc_now().timestamp()) < 5


def test_writers_take_turns(any_database: Database) -> None:
    with any_database.transaction() as session:
        session.execute(text("CREATE TABLE counter (n INTEGER)"))
        session.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        for _ in range(25):
            with any_database.transaction() as session:
                lock = "" if any_database.url.startswith("sqlite") else " FOR UPDATE"
                value = session.scalar(text(f"SELECT n FROM counter{lock}"))
                session.execute(text("UPDATE counter SET n = :n"), {"n": value + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with any_database.transaction() as session:
        assert session.scalar(text("SELECT n FROM counter")) == 100
        session.execute(text("DROP TABLE counter"))
