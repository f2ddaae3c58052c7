"""``pressroom migrate``."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import Exit, err


def migrate(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the SQLite database; PRESSROOM_DATA_DIR.")] = None,
    database_url: Annotated[str | None, typer.Option(help="SQLAlchemy URL; PRESSROOM_DATABASE_URL.")] = None,
) -> None:
    """Brings the database up to date; ``up`` does it by itself."""
    given = {"PRESSROOM_DATA_DIR": data_dir, "PRESSROOM_DATABASE_URL": database_url}
    told = {name: str(value) for name, value in given.items() if value is not None}
    prepare({**os.environ, **told})
    err.print("the database is up to date")


def prepare(environment: Mapping[str, str], *arguments: str) -> None:
    """Runs the migrations in a process of their own; ends the command if they fail."""
    command = (sys.executable, "-m", "app.cli.preparation", *arguments)
    done = subprocess.run(command, env=dict(environment), check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        # It has said why.
        raise typer.Exit(Exit.FAILED)
