"""The one owner of database sessions, and the few things that differ between SQLite and PostgreSQL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    MetaData,
    Select,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from app.broker import Broker

AfterCommit = Callable[[], None]
Statement = TypeVar("Statement", bound=Select[Any])


class Record(DeclarativeBase):
    """Base of every table; constraint names are fixed so that migrations can name them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time on both databases; SQLite keeps no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC."""
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware, whatever the database kept."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


Json = JSON().with_variant(JSONB(), "postgresql")


class DatabaseNow(FunctionElement[float]):
    """Seconds since 1970 by the database's own clock, which is the only clock leases are measured with."""

    type = Float()
    inherit_cache = True


@compiles(DatabaseNow, "sqlite")
def _sqlite_now(element: DatabaseNow, compiler: SQLCompiler, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseNow, "postgresql")
def _postgresql_now(element: DatabaseNow, compiler: SQLCompiler, **_: Any) -> str:
    # clock_timestamp moves within a transaction; now() would stand still while a claim waits for a lock.
    return "extract(epoch from clock_timestamp())::double precision"


def utc_now() -> datetime:
    """The time for ``created_at`` and its like; never for leases."""
    return datetime.now(UTC)


def after_commit(session: Session, action: AfterCommit) -> None:
    """Runs ``action`` once the session's transaction has committed; forgotten if it rolls back.

    Not for use inside a savepoint.
    """
    session.info.setdefault("after_commit", []).append(action)


RowLock = Literal["use", "delete"]
"""``use``: the row must stay as long as this transaction lasts; ``delete``: nobody may come to use it meanwhile."""


def locked(statement: Statement, lock: RowLock | None) -> Statement:
    """Locks the rows that ``statement`` finds; SQLite needs none, its writers take turns."""
    return statement if lock is None else statement.with_for_update(read=lock == "use")


class Database:
    """An engine and its transactions.

    Args:
        url: SQLAlchemy URL of SQLite or PostgreSQL (``postgresql+psycopg://``).
        broker: Carried by every session as ``session.info["broker"]``, for what repositories send after the commit.
    """

    def __init__(self, url: str, broker: Broker | None = None) -> None:
        self.url = url
        self.broker = broker
        self.engine = _create_engine(url)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits on success, rolls back on an exception, then runs what waits for the commit."""
        with Session(self.engine, expire_on_commit=False, info={"broker": self.broker}) as session:
            with session.begin():
                yield session
            for action in session.info.pop("after_commit", []):
                action()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for reads alone; it takes no write lock on SQLite."""
        with Session(self.engine.execution_options(read_only=True), expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()


def _create_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=10, max_overflow=20, pool_pre_ping=True)
    if database := make_url(url).database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30.0}, pool_size=10, max_overflow=20)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        # The driver must not open transactions by itself: begin() below does.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A deferred transaction that reads first and writes later fails with BUSY at once when another writer came
        # in between; an immediate one waits its turn.
        read_only = connection.get_execution_options().get("read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
