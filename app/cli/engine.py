"""``pressroom run``, ``expand``, ``pack`` and ``unpack``: the engine alone, without a service."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.cli.output import fail
from app.cli.service import missing_worker_libraries


def run(
    model: Annotated[Path, typer.Argument(exists=True, help="A model file or directory.")],
    recipe: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="JSON file with the steps.")],
    output: Annotated[Path, typer.Option(help="Directory for artifact and report.")],
    data: Annotated[
        Path | None, typer.Option(exists=True, help="Evaluation data; a part of it trains or calibrates if need be.")
    ] = None,
    train: Annotated[Path | None, typer.Option(exists=True, help="Training data.")] = None,
    calibration: Annotated[Path | None, typer.Option(exists=True, help="Calibration data.")] = None,
    student: Annotated[
        Path | None, typer.Option(exists=True, help="The model that the recipe names as its student.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Feeds every random choice.")] = 0,
) -> None:
    """Compresses a model here and now: files in, artifact and report out. For files you trust: it uses no sandbox."""
    command = ["run", str(model)]
    command += ["--recipe", str(recipe), "--output", str(output), "--seed", str(seed)]
    files = {"--data": data, "--train": train, "--calibration": calibration, "--student": student}
    for option, path in files.items():
        if path is not None:
            command += [option, str(path)]
    _run_engine(command)


def expand(
    model: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An ONNX file whose weights are packed.")],
    output: Annotated[Path, typer.Option(dir_okay=False, help="The dense ONNX file to write.")],
) -> None:
    """Stores the weights of a self-expanding ONNX file densely: larger, quicker to load, the same outputs."""
    _run_engine(["expand", str(model), "--output", str(output)])


def pack(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Any model file.")],
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The archive; by default the file's name and .prsz.")
    ] = None,
) -> None:
    """Stores a model file entropy-coded, for storage and transfer; ``unpack`` gives it back bit for bit."""
    _run_engine(["pack", str(file), *(["--output", str(output)] if output else [])])


def unpack(
    archive: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .prsz file.")],
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The file to write; by default the name without .prsz.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(min=0, help="Refuse archives of larger files.")] = 64 << 30,
) -> None:
    """Gives back the file that an archive was made of, checked byte by byte."""
    _run_engine(["unpack", str(archive), "--max-bytes", str(max_bytes), *(["--output", str(output)] if output else [])])


def _run_engine(arguments: list[str]) -> NoReturn:
    """Runs the engine in a process of its own and ends with its exit code."""
    missing = missing_worker_libraries()
    if missing:
        fail(f"the engine is not installed here: {', '.join(missing)}", hint="pip install 'pressroom[worker]'")
    command = [sys.executable, "-m", "workers.compression", *arguments]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own module, arguments passed as a list
    raise typer.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
