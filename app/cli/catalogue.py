"""``pressroom techniques``."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.connect import ApiKey, AsJson, Url, connected
from app.cli.output import out, print_json


def techniques(
    model: Annotated[str | None, typer.Option(help="Say what applies to this model (mdl_…), and why not.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Lists what the service can do to a model."""
    with connected(url, api_key) as client:
        entries = client.techniques(model=model)
    if as_json:
        print_json(entries)
        return
    table = Table()
    for heading in ("technique", "formats", "needs", "summary"):
        table.add_column(heading, overflow="fold")
    if model:
        table.add_column("applies")
    for entry in entries:
        name = f"{entry['technique']}.{entry['method']}" + (" (default)" if entry.get("default") else "")
        cells = [name, ", ".join(entry["formats"]), ", ".join(entry["needs"]), entry["summary"]]
        if model:
            cells.append("yes" if entry.get("applies") else f"no: {entry.get('why_not') or ''}")
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)
