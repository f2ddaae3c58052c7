"""The whole job without service, database or broker: ``python -m workers.compression run MODEL --recipe FILE``.

The files are the caller's own, so nothing is confined; each stage still runs in a process of its own, speaking the
same protocol as under the supervisor, so that the measurements mean the same.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from workers.compression import report
from workers.compression.specs.containers.archives import stored_zip
from workers.compression.specs.errors import Crashed, EngineError, InvalidSpec
from workers.compression.specs.formats import RUNNABLE_FORMATS
from workers.compression.specs.job import DatasetFields
from workers.compression.specs.messages import (
    OUTPUT_FOLDER,
    REQUEST_FILE,
    RESULT_FILE,
    Compare,
    Comparison,
    Compress,
    Compressed,
    Data,
    DatasetFile,
    DatasetInspection,
    Event,
    InspectDataset,
    InspectModel,
    Log,
    ModelFile,
    ModelInspection,
    Outcome,
    Probe,
    ProbeResult,
    Progress,
    Request,
)
from workers.compression.specs.recipe import Recipe
from workers.compression.specs.report import Report, StoredModel

ResultType = TypeVar("ResultType")
CALIBRATION_SHARE = 0.2
TRAINING_SHARE = 0.6
SELECTION_SHARE = 0.3


def main(arguments: list[str]) -> int:
    """Command line of the engine alone; 0 when the artifact and its report are written, 1 with the reason if not."""
    parser = argparse.ArgumentParser(prog="pressroom run", description="Compress a model without the service.")
    parser.add_argument("model", type=Path, help="model file, archive or directory")
    parser.add_argument("--recipe", type=Path, required=True, help="JSON: a list of steps, or an object with 'recipe'")
    parser.add_argument("--output", type=Path, required=True, help="folder for the artifact and the report")
    parser.add_argument("--data", type=Path, help="evaluation data; a part of it trains or calibrates if need be")
    parser.add_argument("--train", type=Path, help="training data")
    parser.add_argument("--calibration", type=Path, help="calibration data")
    parser.add_argument("--student", type=Path, help="the model that the recipe names as its student")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="pressroom-run-") as folder:
            made = run(options.model, read_recipe(options.recipe), options.output, Path(folder), options)
    except EngineError as error:
        hint = f" {error.hint}" if error.hint else ""
        step = f" ({error.step})" if error.step else ""
        sys.stderr.write(f"{error.code}{step}: {error.detail}{hint}\n")
        return 1
    sys.stdout.write(report.to_markdown(made))
    sys.stdout.write(f"\nartifact: {options.output / made.artifact.name}\nreport:   {options.output / 'report.html'}\n")
    return 0


def read_recipe(path: Path) -> Recipe:
    """The recipe in a JSON file; raises ``InvalidSpec`` naming the field."""
    try:
        raw = json.loads(path.read_text("utf-8"))
        return TypeAdapter(Recipe).validate_python(raw["recipe"] if isinstance(raw, dict) else raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidSpec(f"recipe {'/'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (OSError, ValueError, KeyError) as error:
        raise InvalidSpec(f"The recipe file cannot be read: {error}") from error


def run(model: Path, recipe: Recipe, output: Path, scratch: Path, options: argparse.Namespace) -> Report:
    """Inspects, compresses, probes and compares; writes artifact and report below ``output``."""
    upload, original = _model(model, scratch / "model")
    students = _students(recipe, options, scratch)
    data = share_out(options, scratch, recipe)
    threads = os.cpu_count() or 1
    request = Compress(model=original, recipe=recipe, students=students, data=data, seed=options.seed, threads=threads)
    compressed = _perform(request, scratch / "compress", Compressed)
    output.mkdir(parents=True, exist_ok=True)
    artifact = output / compressed.name
    shutil.copyfile(scratch / "compress" / compressed.path, artifact)
    for extra in compressed.extras:
        shutil.copyfile(scratch / "compress" / extra.path, output / extra.name)
    stored = ModelFile(path=str(artifact.absolute()), format=compressed.format)
    comparison = _measure(original, stored, recipe, data, options.seed, scratch)
    made = report.build(
        original=_stored_model(upload, original.format, model.name),
        artifact=_stored_model(artifact, compressed.format, compressed.name),
        compressed=compressed,
        comparison=comparison,
        recipe=recipe,
        seed=options.seed,
    )
    (output / "report.json").write_text(made.model_dump_json(indent=2, exclude_none=True), "utf-8")
    (output / "report.md").write_text(report.to_markdown(made), "utf-8")
    (output / "report.html").write_text(report.to_html(made), "utf-8")
    return made


def _measure(
    original: ModelFile, stored: ModelFile, recipe: Recipe, data: Data, seed: int, scratch: Path
) -> Comparison:
    probes = None
    if original.format in RUNNABLE_FORMATS:
        before, after = (
            _perform(Probe(model=file, original=original, data=data, seed=seed), scratch / f"probe{index}", ProbeResult)
            for index, file in enumerate((original, stored))
        )
        probes = (before, after)
    request = Compare(original=original, compressed=stored, probes=probes, data=data, recipe=recipe, seed=seed)
    return _perform(request, scratch / "compare", Comparison)


def _model(path: Path, scratch: Path) -> tuple[Path, ModelFile]:
    """The file that an upload of ``path`` would be, and its clean form."""
    if not path.exists():
        raise InvalidSpec(f"There is no {path}.")
    scratch.mkdir()
    upload = path.absolute()
    if path.is_dir():
        upload = scratch / "upload.zip"
        stored_zip(path, upload)
    inspection = _perform(InspectModel(path=str(upload), filename=path.name), scratch / "inspect", ModelInspection)
    clean = scratch / "inspect" / inspection.clean if inspection.clean else upload
    return upload, ModelFile(path=str(clean), format=inspection.format)


def _students(recipe: Recipe, options: argparse.Namespace, scratch: Path) -> dict[str, ModelFile]:
    """Every student that the recipe names is the one file that was given."""
    named = [student for step in recipe if (student := getattr(step, "student", None)) is not None]
    if not named:
        return {}
    if options.student is None:
        raise InvalidSpec(f"The recipe names the student {named[0]}.", hint="Give its file with --student.")
    _, file = _model(options.student, scratch / "student")
    return dict.fromkeys(named, file)


def share_out(options: argparse.Namespace, scratch: Path, recipe: Recipe) -> Data:
    """The roles' data. No row serves two roles: what no file of its own was given for is set aside of another's."""
    given = {"train": options.train, "calibration": options.calibration, "evaluation": options.data}
    roles = {
        role: _dataset(path, scratch / role)
        for role, path in given.items()
        if path is not None and (role == "evaluation" or path != options.data)
    }
    needs = {need for step in recipe for need in step.required()}
    if "train" in needs and len({"train", "evaluation"} & set(roles)) == 1:
        _divide(roles, "train", TRAINING_SHARE, options.seed)
    elif "calibration" in needs and set(roles) == {"evaluation"}:
        _divide(roles, "calibration", CALIBRATION_SHARE, options.seed)
    if "selection" in needs and roles:
        _set_aside(roles, options.seed)
    return Data(**roles)


def _divide(roles: dict[str, DatasetFile], role: str, share: float, seed: int) -> None:
    """Gives ``share`` of the only dataset there is for either to ``role``, the rest to the evaluation."""
    whole = roles.get("evaluation") or roles[role]
    roles[role] = whole.model_copy(update={"part": (0.0, share), "split_seed": seed})
    roles["evaluation"] = whole.model_copy(update={"part": (share, 1.0), "split_seed": seed})


def _set_aside(roles: dict[str, DatasetFile], seed: int) -> None:
    """Rows to choose by and rows to confirm the choice on, of those that would have been evaluated on."""
    cut = next(role for role in ("evaluation", "calibration", "train") if role in roles)
    low, high = roles[cut].part
    bounds = (low, *(low + share * (high - low) for share in (SELECTION_SHARE, 2 * SELECTION_SHARE)), high)
    whole = roles[cut].model_copy(update={"split_seed": seed})
    for role, part in zip(("selection", "confirmation", cut), pairwise(bounds), strict=True):
        roles[role] = whole.model_copy(update={"part": part})


def _dataset(path: Path, scratch: Path) -> DatasetFile:
    request = InspectDataset(path=str(path.absolute()), filename=path.name)
    found = _perform(request, scratch, DatasetInspection)
    return DatasetFile(path=request.path, format=found.format, fields=DatasetFields())


def _perform(request: Request, folder: Path, expected: type[ResultType]) -> ResultType:
    """Runs one task in a fresh process and passes its progress on to standard error."""
    folder.mkdir(parents=True)
    (folder / REQUEST_FILE).write_text(request.model_dump_json(), "utf-8")
    (folder / OUTPUT_FOLDER).mkdir()
    events: TypeAdapter[Event] = TypeAdapter(Event)
    with subprocess.Popen([sys.executable, "-m", "workers.compression"], cwd=folder, stdout=subprocess.PIPE) as child:
        for line in child.stdout or ():
            _show(events.validate_json(line))
    if child.returncode != 0:
        raise Crashed(f"The {request.task} process ended with code {child.returncode}.", step=request.task)
    outcome = Outcome.model_validate_json((folder / RESULT_FILE).read_bytes())
    if outcome.failure is not None:
        failed = outcome.failure
        error = EngineError(failed.detail, reason=failed.reason, hint=failed.hint, step=failed.step)
        error.code = failed.code  # type: ignore[misc]  # the class of the child's error is gone, its code is not
        raise error
    if not isinstance(outcome.result, expected):
        raise Crashed(f"The {request.task} process gave another kind of result.", step=request.task)
    return outcome.result


def _show(event: Event) -> None:
    if isinstance(event, Progress):
        sys.stderr.write(f"{event.fraction:6.1%}  {event.step}  {event.message}\n")
    elif isinstance(event, Log):
        sys.stderr.write(f"        {event.level}: {event.message}\n")


def _stored_model(path: Path, model_format: object, name: str) -> StoredModel:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return StoredModel.model_validate(
        {"name": name, "format": model_format, "sha256": digest, "size_bytes": path.stat().st_size}
    )
