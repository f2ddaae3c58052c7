"""``pressroom keys``: API keys of a running service."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.connect import ApiKey, AsJson, Url, connected
from app.cli.output import err, out, print_json
from app.security import generate_key

keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys (needs the admin scope).")


@keys.command()
def create(
    project: Annotated[str, typer.Option(help="The project it opens; a new name makes the project.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="read, write or admin; repeatable.")] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires_at: Annotated[str | None, typer.Option(help="RFC 3339 time at which it ends.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Makes a key and prints it, this once. The first key ends keyless access."""
    with connected(url, api_key) as client:
        key = client.keys.create(project=project, scopes=scope or ["read", "write"], name=name, expires_at=expires_at)
    if as_json:
        print_json(key.model_dump(mode="json"))
        return
    err.print(f"{key.id} for project {escape(key.project)}; it will not be shown again:")
    typer.echo(key.key)


@keys.command("list")
def list_keys(url: Url = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Lists keys without their secrets."""
    with connected(url, api_key) as client:
        found = list(client.keys.list())
    if as_json:
        print_json([key.model_dump(mode="json") for key in found])
        return
    table = Table()
    for heading in ("id", "project", "name", "scopes", "expires", "revoked"):
        table.add_column(heading, overflow="fold")
    for key in found:
        cells = (key.id, key.project, key.name, ", ".join(key.scopes), key.expires_at or "", key.revoked_at or "")
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)


@keys.command()
def generate() -> None:
    """Prints a fresh key without asking any service: for PRESSROOM_BOOTSTRAP_KEY."""
    typer.echo(generate_key().secret)


@keys.command()
def revoke(key_id: str, url: Url = None, api_key: ApiKey = None) -> None:
    """Ends a key at once."""
    with connected(url, api_key) as client:
        client.keys.revoke(key_id)
    err.print(f"revoked {escape(key_id)}")
