"""``pressroom settings``: every environment variable with its default, as a Markdown table."""

import json

import typer
from pydantic.fields import FieldInfo

from app.config import Settings


def settings() -> None:
    """Prints the configuration table, as it stands in the README."""
    typer.echo(table())


def table() -> str:
    """One row per setting, in the order of their definition."""
    rows = [
        f"| `{Settings.model_config['env_prefix']}{name.upper()}` | {_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(("| variable | default | meaning |", "| --- | --- | --- |", *rows))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value in ({}, ()):
        return ""
    return f"`{json.dumps(value) if isinstance(value, bool | int | float) else value}`"
