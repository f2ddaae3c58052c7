"""A job's events as a live progress bar."""

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.cli.output import err
from app.client.client import Client
from app.client.objects import Event, Job


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
        for event in client.jobs.events(job_id):
            _show(bar, task, event)
    return client.jobs.get(job_id)


def _show(bar: Progress, task: TaskID, event: Event) -> None:
    data = event.data
    match event.type:
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
        case "job.started" | "job.queued" | "job.requeued":
            bar.update(task, description=event.type.removeprefix("job."))
        case "job.succeeded":
            bar.update(task, completed=1.0, description="succeeded", message="")
        case "job.failed" | "job.cancelled":
            bar.update(task, description=event.type.removeprefix("job."), message="")
