"""Quantization-aware training of exported torch programs."""

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.torch.pt2_batch_norm import fold_batch_norms
from workers.compression.families.torch.pt2_model import Pt2Model
from workers.compression.families.torch.pt2_rounded_inputs import round_inputs
from workers.compression.quantization.uniform import Grid
from workers.compression.registry import implements
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.steps.quantize_aware import QatQuantize
from workers.compression.techniques.quantize.qat.training import Rounded, chosen_weights, train_rounded


@implements(QatQuantize, formats=(ModelFormat.PT2,))
def train_quantized(model: Model, spec: QatQuantize, context: Context) -> Model:
    """Trains ``model`` on its grids; the program stores integers and computes in float on what they restore to."""
    program = prepared(model, context)
    grid = Grid.of("symmetric", spec.bits)
    convert(program, train_rounded(program, chosen_weights(program, spec, context), grid, spec, context))
    return program


def prepared(model: Model, context: Context) -> Pt2Model:
    """The model without batch norms behind layers that can take them: what is trained is what is stored."""
    if not isinstance(model, Pt2Model):
        raise UnsupportedTechnique(f"This handler serves pt2 programs, not {model.format.value}.")
    folded = fold_batch_norms(model.program)
    if folded:
        context.changed(f"{folded} batch norms folded into the layers before them")
    model.changed()
    return model


def convert(model: Pt2Model, rounded: Rounded) -> None:
    """Stores the integers that were trained, in place."""
    round_inputs(model.program, rounded.weights, rounded.inputs)
    model.changed()
    model.store(rounded.weights.values())
