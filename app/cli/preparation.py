"""``python -m app.cli.preparation``: brings the configured database up to date and ends.

With ``--serve`` it also refuses, before anything is started, what the API would refuse later. A process of its own,
because what migrations import would slow down every other command and stay in the memory of ``pressroom up`` for good.
"""

import sys

from app.config import Settings, get_settings
from app.db import Database
from app.keys.service import Exposed, bootstrap, check_exposure
from migrations.run import upgrade


def main(arguments: list[str]) -> int:
    """0 if the database is ready, and the service may listen where it is told to."""
    settings = get_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.sql_url)
    return _check_service(settings) if "--serve" in arguments else 0


def _check_service(settings: Settings) -> int:
    database = Database(settings.sql_url)
    try:
        bootstrap(database, settings)
        check_exposure(database, settings)
    except (Exposed, ValueError) as refusal:
        sys.stderr.write(f"error: {refusal}\n")
        return 1
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
