"""Commands about jobs: submit, watch, fetch, report."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from app.cli.connect import ApiKey, AsJson, Url, connected
from app.cli.output import Exit, err, fail, human_bytes, out, print_json
from app.cli.progress import follow
from app.cli.specs import parse_data, parse_recipe, parse_target
from app.cli.tables import before_after
from app.client.client import Client
from app.client.objects import Artifact, Job

MEDIA_TYPES = {".html": "text/html", ".md": "text/markdown", ".json": "application/json"}


def submit(
    model: Annotated[str, typer.Argument(help="A model file or directory, or a model id (mdl_…).")],
    *,
    recipe: Annotated[Path | None, typer.Option(help="JSON file with the steps.")] = None,
    technique: Annotated[list[str] | None, typer.Option(help="technique or technique.method; repeatable.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="name=value for that technique.")] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="[train|calibration|evaluation=]PATH or dst_…; repeatable.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Hardware, or runtime=…, threads=…; repeatable.")] = None,
    seed: Annotated[int, typer.Option(help="Feeds every random choice.")] = 0,
    watch_it: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow it until it is done.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Uploads what is not uploaded yet and queues a job."""
    spec: dict[str, Any] = {"recipe": parse_recipe(recipe, technique or (), setting or ()), "seed": seed}
    if target:
        spec["target"] = parse_target(target)
    roles = parse_data(data or ())
    with connected(url, api_key) as client:
        spec["model"] = _model_id(client, model)
        if roles:
            ids = {value: _dataset_id(client, value) for value in dict.fromkeys(roles.values())}
            spec["data"] = {role: ids[value] for role, value in roles.items()}
        job = client.jobs.submit(spec)
        err.print(f"{job.id} {job.status}")
        _show(client, follow(client, job.id) if watch_it else job, as_json)


def watch(job_id: str, url: Url = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Follows a job with a progress bar until it is done; exit code 1 if it did not succeed."""
    with connected(url, api_key) as client:
        _show(client, follow(client, job_id), as_json)


def fetch(
    identifier: Annotated[str, typer.Argument(help="An artifact (art_…), or a job (job_…) for all it made.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File or existing directory.")] = Path(),
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Downloads artifacts, resuming a broken transfer, and checks their SHA-256."""
    with connected(url, api_key) as client:
        artifacts = _artifacts(client, identifier)
        if len(artifacts) > 1:
            output.mkdir(parents=True, exist_ok=True)
        files = [(artifact, client.artifacts.download(artifact.id, output)) for artifact in artifacts]
    if as_json:
        print_json([{**artifact.model_dump(mode="json"), "path": str(file)} for artifact, file in files])
        return
    for artifact, file in files:
        out.print(f"{escape(str(file))}  {human_bytes(artifact.size_bytes)}  sha256 {artifact.sha256}", soft_wrap=True)


def report(
    job_id: str,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=".html, .md or .json file.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Prints a job's report as Markdown, or writes it in the format of the file's ending."""
    media_type = "text/markdown" if output is None else MEDIA_TYPES.get(output.suffix)
    if media_type is None:
        raise typer.BadParameter(f"--output: expected one of {', '.join(MEDIA_TYPES)}")
    with connected(url, api_key) as client:
        text = client.jobs.report(job_id, media_type)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text, "utf-8")


def _model_id(client: Client, model: str) -> str:
    if model.startswith("mdl_"):
        return model
    uploaded = client.models.upload(_existing(model))
    err.print(f"{uploaded.id} {escape(uploaded.name)} {uploaded.format} {human_bytes(uploaded.size_bytes)}")
    return uploaded.id


def _dataset_id(client: Client, value: str) -> str:
    if value.startswith("dst_"):
        return value
    uploaded = client.datasets.upload(_existing(value))
    err.print(f"{uploaded.id} {escape(uploaded.name)} {uploaded.format} {human_bytes(uploaded.size_bytes)}")
    return uploaded.id


def _existing(path: str) -> Path:
    if not Path(path).exists():
        raise typer.BadParameter(f"{path} is neither a file, a directory nor an id")
    return Path(path)


def _artifacts(client: Client, identifier: str) -> tuple[Artifact, ...]:
    if identifier.startswith("job_"):
        found = client.jobs.artifacts(identifier)
        if not found:
            fail(f"{identifier} has made no artifact")
        return found
    return (client.artifacts.get(identifier),)


def _show(client: Client, job: Job, as_json: bool) -> None:
    """Prints a job; ends the command with exit code 1 if it is done and did not succeed."""
    if as_json:
        print_json(job.model_dump(mode="json"))
    elif job.status == "succeeded":
        # An analysis compresses nothing: its figures are in its report.
        if job.metrics:
            out.print(before_after([(job.id, job.metrics)]))
        for warning in job.warnings:
            err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
        for artifact in client.jobs.artifacts(job.id):
            out.print(f"{artifact.id}  {escape(artifact.name)}  {human_bytes(artifact.size_bytes)}")
    if job.done and job.status != "succeeded":
        error = job.error or {}
        fail(
            f"{job.id} {job.status}: {error.get('code', job.termination_reason)}: {error.get('detail', '')}",
            hint=error.get("hint"),
            code=Exit.FAILED,
        )
