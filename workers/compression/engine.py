"""The engine's tasks: paths and a validated request in, files and events out."""

import json
import time
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from workers.compression import data
from workers.compression.analyze import analyze
from workers.compression.archive.artifact import archive_of
from workers.compression.context import Context
from workers.compression.data import Batch, Dataset, open_dataset
from workers.compression.evaluation import output_fidelity
from workers.compression.families.model import Array, Model
from workers.compression.layers import compare_layers
from workers.compression.measure import compare, evaluation_data, open_file, outputs_may_change, probe
from workers.compression.pairing import Binding
from workers.compression.registry import family, handler_for
from workers.compression.sensitivity.known import KnownSensitivities
from workers.compression.specs.containers.sniffing import sniff_model
from workers.compression.specs.errors import DatasetMismatch, EngineError
from workers.compression.specs.fingerprints import fingerprint
from workers.compression.specs.formats import RUNNABLE_FORMATS
from workers.compression.specs.messages import (
    OUTPUT_FOLDER,
    Analyze,
    Compare,
    Compress,
    Compressed,
    InspectDataset,
    InspectModel,
    Probe,
    Request,
    Result,
    StepCompleted,
)
from workers.compression.specs.metrics import Fidelity, StepOutcome
from workers.compression.specs.step import Step
from workers.compression.specs.steps.distill import DistillStep

QUICK_BATCHES = 4
QUICK_ROWS = 16


def perform(request: Request, scratch: Path, context: Context) -> Result:
    """Carries out one request.

    Args:
        scratch: The working directory; made files go below its ``out``.
        context: Takes events; seed, target and data are filled in from the request.

    Raises:
        EngineError: With the step it happened in.
    """
    out = scratch / OUTPUT_FOLDER
    out.mkdir(exist_ok=True)
    if isinstance(request, InspectModel):
        path = Path(request.path)
        return family(sniff_model(path)).inspect(path, out, context)
    if isinstance(request, InspectDataset):
        return data.inspect(Path(request.path), request.filename, request.fields, out)
    _fill(context, request)
    if isinstance(request, Compress):
        return compress(request, out, context)
    if isinstance(request, Analyze):
        return analyze(request, context)
    return probe(request, context) if isinstance(request, Probe) else compare(request, context)


def compress(request: Compress, out: Path, context: Context) -> Compressed:
    """Opens the model, applies the recipe step by step, saves the artifact.

    The figures in the step outcomes are quick looks in memory; the proof is what ``compare`` measures later on the
    stored file.
    """
    context.step = "open"
    recipe = [step.model_dump(mode="json") for step in request.recipe]
    context.identity = json.dumps([request.model.sha256 or Path(request.model.path).stat().st_size, recipe])
    context.open_original = partial(open_file, request.model, context)
    context.open_student = lambda student: open_file(request.students[student], context)
    model = open_file(request.model, context)
    quick_look = _keep_outputs(model, context) if request.model.format in RUNNABLE_FORMATS else None
    outcomes: list[StepOutcome] = []
    context.window = (0.1, 0.85)
    for index, (spec, window) in enumerate(zip(request.recipe, context.windows(len(request.recipe)), strict=True)):
        context.step, context.window = f"recipe/{index}", window
        model, outcome = _apply(model, spec, quick_look, context)
        outcomes.append(outcome)
        # The points of the curves went out one by one as they were made; all together are too long for an event.
        context.emit(StepCompleted(outcome=outcome.model_copy(update={"curves": ()})))
    context.step, context.window = "save", (0.85, 1.0)
    context.progress(0.0, "saving")
    name = f"model{model.extension}"
    model.save(out / name)
    if request.archive:
        context.extras.append(archive_of(out / name, model.load_snippet(name)))
    rebuilt = outputs_may_change(request.recipe)
    layers = compare_layers(open_file(request.model, context), model, rebuilt=rebuilt)
    context.progress(1.0, "saved")
    return Compressed(
        path=f"{OUTPUT_FOLDER}/{name}",
        name=name,
        format=model.format,
        steps=tuple(outcomes),
        layers=layers,
        load=model.load_snippet(name),
        extras=tuple(context.extras),
        sensitivities=() if context.sensitivities.made is None else (context.sensitivities.made,),
        warnings=tuple(context.warnings),
    )


@dataclass(frozen=True)
class _QuickLook:
    """A few batches and what the original made of them."""

    dataset: Dataset
    binding: Binding
    batches: list[Batch]
    outputs: list[list[Array]]

    def fidelity(self, model: Model) -> Fidelity | None:
        """None where the model now answers something else than the original did, or takes other batch sizes."""
        binding = Binding(model.inputs, model.tokenizer_file() or self.binding.tokenizer)
        if binding.agrees(self.binding):
            return output_fidelity(self.outputs, self.batches, model, self.batches, self.dataset)
        batches = _few_batches(self.dataset, binding, max(map(len, self.batches), default=QUICK_ROWS))
        if [len(batch) for batch in batches] != [len(batch) for batch in self.batches]:
            return None
        return output_fidelity(self.outputs, self.batches, model, batches, self.dataset)


def _few_batches(dataset: Dataset, binding: Binding, rows: int) -> list[Batch]:
    return list(islice(dataset.batches(binding.inputs, rows, binding.tokenizer), QUICK_BATCHES))


def _keep_outputs(model: Model, context: Context) -> _QuickLook:
    """Handlers may change a model in place, so the original's outputs are kept before the first of them runs."""
    dataset = evaluation_data(model, context)
    binding = Binding(model.inputs, model.tokenizer_file())
    batches = _few_batches(dataset, binding, QUICK_ROWS)
    return _QuickLook(dataset, binding, batches, [model.run(batch.feeds) for batch in batches])


def _apply(model: Model, spec: Step, quick_look: _QuickLook | None, context: Context) -> tuple[Model, StepOutcome]:
    context.progress(0.0, f"{spec.technique} {spec.method}")
    known_warnings = len(context.warnings)
    context.changes.clear()
    context.curves.clear()
    context.found = None
    started = time.perf_counter()
    try:
        if isinstance(spec, DistillStep) and spec.student is not None:
            # What earlier steps made of the original is of no use to another model.
            model, context.compressed = _student(spec.student, context), False
        model = handler_for(type(spec), model.format)(model, spec, context)
        seconds = time.perf_counter() - started
        context.compressed = context.compressed or spec.compresses
        fidelity = quick_look.fidelity(model) if quick_look is not None else None
    except EngineError as error:
        error.step = error.step or context.step
        raise
    return model, StepOutcome(
        step=context.step,
        technique=spec.technique,
        method=spec.method,
        seconds=seconds,
        changed="; ".join(context.changes) or "done",
        fidelity=fidelity,
        found=context.found,
        curves=tuple(context.curves),
        warnings=tuple(context.warnings[known_warnings:]),
    )


def _student(named: str, context: Context) -> Model:
    if context.open_student is None:
        raise DatasetMismatch(f"There is no student {named}.", reason="no_such_model")
    return context.open_student(named)


def _fill(context: Context, request: Compress | Analyze | Probe | Compare) -> None:
    context.seed, context.target, context.evaluation = request.seed, request.target, request.evaluation
    roles = request.data
    context.train = open_dataset(roles.train) if roles.train else None
    context.calibration = open_dataset(roles.calibration) if roles.calibration else None
    context.evaluation_data = open_dataset(roles.evaluation) if roles.evaluation else None
    context.selection = open_dataset(roles.selection) if roles.selection else None
    context.confirmation = open_dataset(roles.confirmation) if roles.confirmation else None
    if isinstance(request, Compress | Analyze):
        context.threads, context.checkpoint_seconds = request.threads, request.checkpoint_seconds
        context.checkpoints = {found.step: found for found in request.checkpoints}
        context.sensitivities = KnownSensitivities(
            model=request.model.sha256,
            data=fingerprint(request.data, request.evaluation, request.seed),
            maps=request.sensitivities,
        )
