"""Puts the integer, codebook and narrower float forms of weights into a graph that restores them."""

from onnx import ModelProto

from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.matrices import weights_of
from workers.compression.families.weights import Weight, WeightForm
from workers.compression.specs.errors import UnsupportedTechnique


def store_forms(proto: ModelProto, forms: dict[str, WeightForm]) -> None:
    """Stores weights, by their name, in other forms; in place."""
    editor = Editor(proto)
    for weight, found in weights_of(proto):
        if weight.name in forms:
            store_form(editor, found, weight, forms[weight.name])
    editor.apply()


def store_form(editor: Editor, found: FloatWeight, weight: Weight, form: WeightForm) -> None:
    """Stores one weight."""
    raise UnsupportedTechnique(f"{weight.name}: no ONNX form for {type(form).__name__}")
