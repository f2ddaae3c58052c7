"""``python -m app.cli.migration``: brings the configured database up to date and ends.

A process of its own, because what migrations import would slow down every other command and stay in the memory of
``pressroom up`` for good.
"""

import sys

from app.config import get_settings
from migrations.run import upgrade


def main() -> int:
    """Upgrades to the newest revision this version knows."""
    settings = get_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    upgrade(settings.sql_url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
