"""``pressroom demo``: real models through the real API, from upload to an artifact that runs elsewhere."""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from app.cli import zoo
from app.cli.output import clear_errors, err, fail, human_bytes, out
from app.cli.progress import follow
from app.cli.service import missing_worker_libraries
from app.cli.tables import before_after
from app.client.client import Client
from app.client.objects import Job

START_SECONDS = 90.0
STOP_SECONDS = 20.0
DYNAMIC = {"technique": "quantize", "method": "dynamic"}
STATIC = {"technique": "quantize", "method": "static"}


@dataclass(frozen=True)
class Subject:
    """A model of the demo with its labelled data and what is done to it."""

    title: str
    model: Path
    data: Path
    steps: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Made:
    """A finished job and its files."""

    subject: Subject
    title: str
    job: Job
    artifact: Path
    report: Path


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for artifacts and reports.")] = Path(
        "demo-output"
    ),
) -> None:
    """Trains a network, fetches another, compresses both through a service of its own and checks the artifacts."""
    missing = missing_worker_libraries()
    if missing:
        fail(f"the demo needs the engine: {', '.join(missing)} not installed", hint="pip install 'pressroom[worker]'")
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pressroom-demo-") as scratch, clear_errors():
        with _service(Path(scratch) / "service", output / "service.log") as client:
            made = [result for subject in _subjects(Path(scratch)) for result in _compress(client, subject, output)]
        out.print(before_after([(result.title, result.job.metrics or {}) for result in made]))
        for result in made:
            _prove(result)


@contextmanager
def _service(data_dir: Path, log: Path) -> Iterator[Client]:
    """``pressroom up`` on a free port, its output in ``log``; yields once it is ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = (sys.executable, "-m", "app.cli.main", "up", "--port", str(port), "--data-dir", str(data_dir))
    with log.open("wb") as lines:
        process = subprocess.Popen(command, stdout=lines, stderr=lines)  # noqa: S603 - our own module
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            _wait_until_ready(process, client, log)
            err.print(f"service on {client.base_url}, its log in {escape(str(log))}")
            yield client
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _wait_until_ready(process: subprocess.Popen[bytes], client: Client, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not client.ready():
        if process.poll() is not None or time.monotonic() > deadline:
            fail(f"the service did not start; the end of {log}:\n{log.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.1)


def _subjects(folder: Path) -> Iterator[Subject]:
    err.print("training a network on scikit-learn's handwritten digits")
    _run("pressroom.demo.digits", folder)
    yield Subject("digits", folder / "digits.onnx", folder / "digits-test.npz", (DYNAMIC, STATIC))
    package = zoo.packages()["magika"]
    err.print(f"fetching {package.requirement} from PyPI: a network that tells a file's type from its bytes")
    try:
        magika = zoo.fetch("magika")
    except zoo.ZooError as failure:
        fail(str(failure), hint="this part of the demo downloads from PyPI once")
    _run("pressroom.demo.file_types", magika / "config.min.json", folder / "file-types.npz")
    yield Subject("magika", magika / "model.onnx", folder / "file-types.npz", (STATIC,))


def _run(module: str, *arguments: Path) -> str:
    """Output of one of the demo's programs; apart, because the command line itself stays free of numpy and ONNX."""
    command = (sys.executable, "-m", module, *(str(argument) for argument in arguments))
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        fail(f"{module} failed")
    return done.stdout


def _compress(client: Client, subject: Subject, output: Path) -> Iterator[Made]:
    model = client.models.upload(subject.model, name=subject.title)
    data = client.datasets.upload(subject.data)
    err.print(f"uploaded {subject.title}: {model.parameters:,} parameters, {human_bytes(model.size_bytes)}")
    for step in subject.steps:
        spec: dict[str, Any] = {
            "model": model.id,
            "recipe": [step],
            "data": {"calibration": data.id, "evaluation": data.id},
            "labels": {"demo": subject.title},
        }
        job = follow(client, client.jobs.submit(spec).id)
        if job.status != "succeeded":
            error = job.error or {}
            fail(f"{job.id} {job.status}: {error.get('code')}: {error.get('detail')}", hint=error.get("hint"))
        title = f"{subject.title}\n{step['technique']}.{step['method']}"
        yield _collect(client, subject, title, job, output)


def _collect(client: Client, subject: Subject, title: str, job: Job, output: Path) -> Made:
    stem = title.replace("\n", "-")
    model = next(artifact for artifact in client.jobs.artifacts(job.id) if artifact.kind == "model")
    artifact = client.artifacts.download(model.id, output / f"{stem}{Path(model.name).suffix}")
    report = output / f"{stem}.html"
    report.write_text(client.jobs.report(job.id, "text/html"), "utf-8")
    return Made(subject, title, job, artifact, report)


def _prove(made: Made) -> None:
    """The claim that counts: the file works without Pressroom."""
    figures = json.loads(_run("pressroom.demo.proof", made.artifact, made.subject.data))
    out.print(
        f"\n[bold]{escape(made.artifact.stem)}[/]: onnxruntime {figures['onnxruntime']} alone gets accuracy "
        f"{figures['accuracy']:.4f} on all rows\n  artifact {escape(str(made.artifact))}"
        f"\n  report   {escape(str(made.report))}",
        soft_wrap=True,
    )
