"""The task that measures how sensitive a model is to the quantization of each weight, and changes nothing."""

import time

from workers.compression.context import Context
from workers.compression.environment import describe
from workers.compression.families.model import StoredLayer
from workers.compression.families.weights import CompressibleModel
from workers.compression.measure import evaluation_data, open_file
from workers.compression.sensitivity.measuring import candidates
from workers.compression.sensitivity.survey import ANALYZE, Survey
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.messages import Analyze, Analyzed
from workers.compression.specs.metrics import Layer
from workers.compression.weight_errors import count_nonzero


def analyze(request: Analyze, context: Context) -> Analyzed:
    """Opens the model and measures what is not known yet.

    Raises:
        UnsupportedTechnique: It has no weights that could be quantized one by one, or none is selected.
    """
    context.step, started = ANALYZE, time.perf_counter()
    model = open_file(request.model, context)
    if not isinstance(model, CompressibleModel):
        raise UnsupportedTechnique(f"The weights of a {model.format.value} model cannot be quantized one by one.")
    weights = candidates(model, request.options)
    if not weights:
        raise UnsupportedTechnique(
            "No float weight matrix of the model is selected, or none is large enough to be quantized.",
            hint="Check include and exclude.",
        )
    # Nothing is judged here, so the evaluation's rows may serve where there are no others.
    dataset = context.any_data() or evaluation_data(model, context)
    known = context.sensitivities.maps
    with Survey(model, weights, request.options, dataset, context) as survey:
        measured = survey.sensitivities({weight.name: request.options.bits for weight in weights})
    context.progress(1.0, "measured")
    return Analyzed(
        sensitivity=measured,
        reused=measured in known,
        layers=measured.filled_in(tuple(_row(layer) for layer in model.stored_layers())),
        seconds=time.perf_counter() - started,
        environment=describe(request.threads),
        warnings=tuple(context.warnings),
    )


def _row(layer: StoredLayer) -> Layer:
    return Layer(
        name=layer.name,
        op=layer.op,
        parameters=layer.parameters,
        bytes_before=layer.bytes,
        bytes_after=layer.bytes,
        bits=layer.bits,
        sparsity=1.0 - count_nonzero(layer) / layer.parameters if layer.parameters else 0.0,
    )
