"""Runs the migrations on whatever database the settings, or the caller, name."""

from alembic import context
from sqlalchemy import Connection, text

from app.config import get_settings
from app.db import Database
from app.records import Record

# Any number: it only has to differ from what else locks in the same PostgreSQL database.
ADVISORY_LOCK = 7_301_377_001


def run(connection: Connection) -> None:
    with connection.begin():
        if connection.dialect.name == "postgresql":
            # Several API processes may start at once; the first one migrates. SQLite's write lock does the same.
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        context.configure(
            connection=connection,
            target_metadata=Record.metadata,
            compare_type=True,
            render_as_batch=True,
            transactional_ddl=True,
        )
        context.run_migrations()


database = Database(context.config.get_main_option("sqlalchemy.url") or get_settings().sql_url)
try:
    with database.engine.connect() as started:
        run(started)
finally:
    database.close()
