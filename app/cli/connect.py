"""The options that every command speaking to a service shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from app.cli.output import clear_errors
from app.client.client import Client

Url = Annotated[str | None, typer.Option(envvar="PRESSROOM_URL", help="Where the service is.", show_default=False)]
ApiKey = Annotated[str | None, typer.Option(envvar="PRESSROOM_API_KEY", help="API key (prk_…).", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@contextmanager
def connected(url: str | None, api_key: str | None) -> Iterator[Client]:
    """A client whose errors end the command with one clear line."""
    with clear_errors(), Client(url, api_key=api_key) as client:
        yield client
