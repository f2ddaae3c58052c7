"""Whether the parts that the service needs answer."""

from collections.abc import Callable

from sqlalchemy import text

from app.broker import Broker
from app.db import Database
from app.errors import Problem, Unavailable
from app.storage import Storage
from migrations.run import is_current
from workers.compression.specs.errors import EngineError


def check_parts(database: Database, broker: Broker, storage: Storage) -> dict[str, str]:
    """``ok`` or what is wrong, by the name of the part."""
    return {
        "database": _outcome(lambda: _check_database(database)),
        "broker": _outcome(broker.ping),
        "storage": _outcome(storage.ping),
    }


def _check_database(database: Database) -> None:
    with database.reading() as session:
        session.execute(text("SELECT 1"))
    if not is_current(database):
        raise Unavailable("migrations are missing")


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except (Problem, EngineError) as problem:
        return problem.detail
    except Exception:  # noqa: BLE001 - whatever a driver raises, the answer is that the part is not ready
        return "does not answer"
    return "ok"
