"""The ``pressroom`` command."""

from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from app.cli import catalogue, demo, doctor, engine, jobs, keys, migrate, settings, up

app = typer.Typer(
    name="pressroom",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Makes trained models smaller, faster and cheaper, and proves it.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pressroom {installed_version('pressroom')}")
        raise typer.Exit


@app.callback()
def pressroom(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command."""


app.command()(up.up)
app.command()(jobs.submit)
app.command()(jobs.watch)
app.command()(jobs.fetch)
app.command()(jobs.report)
app.command()(catalogue.techniques)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(engine.run)
app.command()(engine.expand)
app.command()(engine.pack)
app.command()(engine.unpack)
app.command()(migrate.migrate)
app.command()(settings.settings)
app.add_typer(keys.keys, name="keys")

if __name__ == "__main__":
    app()
