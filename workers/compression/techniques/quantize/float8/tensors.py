"""8-bit float storage of bare tensors, with a scale for each."""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.tensors.model import TensorsModel, as_tensors
from workers.compression.families.weights import FloatForm, Weight, selected
from workers.compression.quantization.resuming import resumed
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import TENSOR_FORMATS
from workers.compression.specs.steps.quantize import Float8Quantize
from workers.compression.techniques.quantize.float8.rounding import as_float8

SMALLEST_WEIGHT = 128


@implements(Float8Quantize, formats=TENSOR_FORMATS)
def store_in_float8(model: Model, spec: Float8Quantize, context: Context) -> Model:
    """Rounds every selected matrix, kernel and table, one at a time; vectors stay as they are."""
    model = as_tensors(model)
    candidates, chosen = selected(model, spec.include, spec.exclude, SMALLEST_WEIGHT)
    weights = [weight for weight in chosen if model.stored[weight.name].dtype.itemsize > 1]
    if not weights:
        raise UnsupportedTechnique(
            f"None of the model's {len(candidates)} float tensors of two axes and at least {SMALLEST_WEIGHT} elements "
            "is selected and wider than 8 bits."
        )
    model.store(resumed(weights, partial(_form, model, spec), spec, context))
    context.changed(
        f"{len(weights)} of {len(candidates)} weights stored as float8 {spec.variant}, a scale per {spec.granularity}"
    )
    return model


def _form(model: TensorsModel, spec: Float8Quantize, weight: Weight) -> FloatForm:
    return as_float8(weight, model.matrix(weight), spec)
