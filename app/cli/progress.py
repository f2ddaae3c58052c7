"""A job's events as a live progress bar."""

from collections.abc import Mapping

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.cli.output import err
from app.client.client import Client
from app.client.objects import Event, Job

Curves = dict[str, tuple[float, float]]
"""First and last value so far by name."""


def follow(client: Client, job_id: str) -> Job:
    """Shows a job's progress until it is done, then returns it; Ctrl-C stops the watching, not the job."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("queued", total=1.0, message="")
        curves: Curves = {}
        for event in client.jobs.events(job_id):
            _show(bar, task, event, curves)
    return client.jobs.get(job_id)


def course(curves: Mapping[str, tuple[float, float]]) -> str:
    """How each figure of a training went, in one line: ``train/loss 2.31 → 0.412, …``."""
    return ", ".join(f"{name} {first:.3g} → {last:.3g}" for name, (first, last) in curves.items())


def _show(bar: Progress, task: TaskID, event: Event, curves: Curves) -> None:
    data = event.data
    match event.type:
        case "job.metric":
            name, value = str(data.get("name")), float(data.get("value") or 0.0)
            curves[name] = (curves.get(name, (value, value))[0], value)
            bar.update(task, message=escape(f"{name} {value:.3g}"))
        case "job.progress":
            bar.update(
                task,
                completed=float(data.get("fraction") or 0.0),
                description=escape(str(data.get("step") or "running")),
                message=escape(str(data.get("message") or "")),
            )
        case "job.step_completed":
            outcome = data.get("outcome", data)
            words = f"{outcome.get('technique', '')}.{outcome.get('method', '')} done: {outcome.get('changed', '')}"
            bar.console.print(escape(words))
            if curves:
                bar.console.print(escape(course(curves)), style="dim")
                curves.clear()
        case "job.started" | "job.queued" | "job.requeued":
            bar.update(task, description=event.type.removeprefix("job."))
        case "job.succeeded":
            bar.update(task, completed=1.0, description="succeeded", message="")
        case "job.failed" | "job.cancelled":
            bar.update(task, description=event.type.removeprefix("job."), message="")
