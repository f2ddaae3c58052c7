"""Migrations as functions; they find their scripts from an installed package too."""

from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.db import Database

FOLDER = Path(__file__).parent


def configuration(database_url: str) -> Config:
    """Alembic's configuration for a database."""
    config = Config()
    config.set_main_option("script_location", _literal(str(FOLDER)))
    config.set_main_option("sqlalchemy.url", _literal(database_url))
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Brings the database's tables up to date; safe to run from many processes at once."""
    command.upgrade(configuration(database_url), revision)


def is_current(database: Database) -> bool:
    """Whether every migration that this version knows has been run."""
    with database.engine.connect() as connection:
        return frozenset(MigrationContext.configure(connection).get_current_heads()) == _heads()


@lru_cache
def _heads() -> frozenset[str]:
    return frozenset(ScriptDirectory(FOLDER).get_heads())


def _literal(value: str) -> str:
    # Alembic keeps options in a ConfigParser, which reads a percent sign as the start of an interpolation.
    return value.replace("%", "%%")
