"""8-bit float storage of the weights of networks; what computes with them restores and scales them back."""

from collections.abc import Iterator

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import FloatForm, Weight, as_compressible, selected
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.quantize import Float8Quantize
from workers.compression.techniques.quantize.float8.rounding import SMALLEST_WEIGHT, as_float8


def store_in_float8(model: Model, spec: Float8Quantize, context: Context) -> Model:
    """Rounds every selected matrix, kernel and table of ``model``, in place; biases and norms stay as they are."""
    model = as_compressible(model)
    large, chosen = selected(model, spec.include, spec.exclude, SMALLEST_WEIGHT)
    stored: list[Weight] = []

    def forms() -> Iterator[tuple[Weight, FloatForm]]:
        for count, weight in enumerate(chosen):
            context.progress(count / len(chosen), weight.layer)
            form = as_float8(weight, model.matrix(weight), spec)
            why_not = model.why_not(weight, form)
            if why_not is None:
                stored.append(weight)
                yield weight, form
            else:
                context.warn(f"{weight.name} of {weight.layer} stays {weight.dtype}: {why_not}.")

    model.store(forms())
    if not stored:
        raise UnsupportedTechnique(
            f"None of the model's {len(large)} float weights of at least {SMALLEST_WEIGHT} elements is selected and "
            "can be stored in 8 bits."
        )
    context.changed(
        f"{len(stored)} of {len(large)} weights stored as float8 {spec.variant}, a scale per {spec.granularity}"
    )
    return model
