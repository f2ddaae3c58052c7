"""``pressroom doctor``: what this machine has and what it lacks."""

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.output import Exit, fail, human_bytes, out, print_json
from app.cli.service import MissingRedis, missing_worker_libraries, redis_server
from app.config import Settings

PROBE_SECONDS = 60
SMALL_DISK_BYTES = 5_000_000_000
Level = Literal["ok", "warning", "missing"]
COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "missing": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``missing`` means that part of Pressroom cannot work here."""

    name: str
    level: Level
    detail: str


def doctor(
    service: Annotated[bool, typer.Option("--service", help="Ask database, broker and storage instead.")] = False,
    worker: Annotated[bool, typer.Option("--worker", help="Like --service; a worker of this host as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Looks at this machine, or at what the service needs; exit code 1 if something is missing."""
    findings = _service(worker=worker) if service or worker else _machine(Settings())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table(show_header=False, box=None)
        for found in findings:
            table.add_row(f"[{COLOURS[found.level]}]{found.level}[/]", found.name, escape(found.detail))
        out.print(table)
    if any(finding.level == "missing" for finding in findings):
        raise typer.Exit(Exit.FAILED)


def _service(*, worker: bool) -> list[Finding]:
    answers = _probe("app.cli.reachability", *(["--worker"] if worker else []))
    return [Finding(name, "ok" if answer == "ok" else "missing", answer) for name, answer in answers.items()]


def _machine(settings: Settings) -> list[Finding]:
    findings = [
        Finding("python", "ok" if sys.version_info >= (3, 11) else "missing", platform.python_version()),
        _redis(settings),
        _disk(settings.data_dir),
    ]
    missing = missing_worker_libraries()
    if missing:
        detail = f"{', '.join(missing)} not installed: pip install 'pressroom[worker]'"
        return [*findings, Finding("engine", "missing", detail)]
    seen = _probe("workers.doctor")
    return [*findings, _engine(seen["versions"]), *_hardware(seen["hardware"]), *_sandbox(seen["sandbox"])]


def _redis(settings: Settings) -> Finding:
    if settings.redis_url is not None:
        return Finding("redis", "ok", "an external one, by PRESSROOM_REDIS_URL")
    try:
        return Finding("redis", "ok", str(redis_server()))
    except MissingRedis as failure:
        return Finding("redis", "missing", str(failure))


def _disk(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir.absolute(), *data_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    level: Level = "ok" if free >= SMALL_DISK_BYTES and os.access(existing, os.W_OK) else "warning"
    return Finding("disk", level, f"{human_bytes(free)} free for {data_dir.absolute()}")


def _engine(versions: dict[str, str]) -> Finding:
    return Finding("engine", "ok", ", ".join(f"{name} {number}" for name, number in versions.items()))


def _hardware(hardware: dict[str, Any]) -> list[Finding]:
    sets = hardware["instruction_sets"]
    fast_integers = {"avx512_vnni", "avx_vnni", "amx_int8", "i8mm"} & set(sets)
    note = "" if fast_integers else "; no 8-bit dot products: int8 may gain little speed here"
    return [
        Finding(
            "cpu", "ok", f"{hardware['cpu']}, {hardware['cores']} cores, {' '.join(sets) or 'no known sets'}{note}"
        ),
        Finding("memory", "ok", human_bytes(hardware["memory_bytes"])),
    ]


def _sandbox(sandbox: dict[str, Any]) -> list[Finding]:
    """A missing layer is a warning: jobs run, but what is uploaded is less confined."""
    names = {"landlock": "files and network", "seccomp": "system calls"}
    return [
        Finding(
            f"sandbox {layer}",
            "ok" if sandbox[layer] else "warning",
            f"confines {what}" if sandbox[layer] else f"not here: {what} of a job's child are not confined by it",
        )
        for layer, what in names.items()
    ]


def _probe(module: str, *arguments: str) -> dict[str, Any]:
    """A program's JSON; apart, because it imports what the command line does without."""
    command = (sys.executable, "-m", module, *arguments)
    done = subprocess.run(  # noqa: S603 - our own module
        command, stdout=subprocess.PIPE, text=True, timeout=PROBE_SECONDS, check=False
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        fail(f"{module} gave no answer", hint="its own message stands above")
    return answer
