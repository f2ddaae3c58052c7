"""How commands speak: results to standard output, everything else to standard error, errors as one line."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from app.client.errors import ClientError, ConnectionFailed, Problem

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Exit(IntEnum):
    """Exit codes scripts can rely on."""

    OK = 0
    FAILED = 1
    """The work itself failed: a failed or cancelled job, a missing requirement."""
    USAGE = 2
    """The command line was wrong."""
    REFUSED = 3
    """The service refused the request."""
    UNREACHABLE = 4
    """No service answered."""


def fail(message: str, *, hint: str | None = None, code: Exit = Exit.FAILED) -> NoReturn:
    """Prints one line and ends the command."""
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    if hint:
        err.print(f"[bold]hint:[/] {escape(hint)}", soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Turns what the client raises into one line and an exit code."""
    try:
        yield
    except Problem as problem:
        fail(describe_problem(problem), hint=problem.hint, code=Exit.REFUSED)
    except ConnectionFailed as failure:
        fail(str(failure), hint="start a service with: pressroom up", code=Exit.UNREACHABLE)
    except ClientError as failure:
        fail(str(failure))


def describe_problem(problem: Problem) -> str:
    """A problem document as a sentence: its code, its detail, the fields to blame."""
    fields = "; ".join(f"{error.pointer}: {error.detail}" for error in problem.errors)
    words = f"{problem.code}: {problem.detail}"
    return f"{words} ({fields})" if fields else words


def print_json(value: Any) -> None:
    """Machine-readable output: nothing but JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def human_bytes(count: float) -> str:
    """1234567 as ``1.23 MB``: three digits, powers of 1000, as disks and downloads are counted."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
