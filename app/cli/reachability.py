"""``python -m app.cli.reachability``: whether the configured database, broker and storage answer, as JSON.

With ``--worker`` also whether a worker of this host was heard of lately; container health checks use it.
"""

import json
import socket
import sys

from app.broker import Broker
from app.config import Settings, get_settings
from app.db import Database
from app.health.service import check_parts
from app.storage import Storage
from app.workers_registry import repository

SILENCE_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """0 if everything is ``ok``."""
    found = check(get_settings(), worker="--worker" in arguments)
    json.dump(found, sys.stdout)
    return 0 if set(found.values()) == {"ok"} else 1


def check(settings: Settings, *, worker: bool) -> dict[str, str]:
    """``ok`` or what is wrong, by part."""
    broker = Broker(settings.broker_url)
    database = Database(settings.sql_url)
    try:
        storage = Storage(settings.blob_url, settings.storage_options, settings.scratch_dir)
        found = check_parts(database, broker, storage)
        if worker and found["database"] == "ok":
            found["worker"] = "ok" if _worker_is_here(database) else "no worker of this host was heard of lately"
        return found
    finally:
        database.close()
        broker.close()


def _worker_is_here(database: Database) -> bool:
    host = socket.gethostname()
    with database.reading() as session:
        return any(found.hostname == host for found in repository.present(session, SILENCE_SECONDS))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
