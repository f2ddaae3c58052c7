"""Puts the integer, codebook and narrower float forms of weights into a graph that restores them."""

from onnx import ModelProto

from workers.compression.families.onnx.codebook_forms import store_codebook, store_codebook_table
from workers.compression.families.onnx.editing import Editor, raise_opset
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.matrices import is_lookup, weights_in
from workers.compression.families.onnx.table_forms import store_table
from workers.compression.families.onnx.uniform_forms import store_folded
from workers.compression.families.onnx.unpacking import UNPACKING_OPSET
from workers.compression.families.onnx.walking import Place
from workers.compression.families.weights import Weight, WeightForm
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.specs.errors import UnsupportedTechnique


def store_forms(proto: ModelProto, forms: dict[str, WeightForm]) -> None:
    """Stores weights, by their name, in other forms; in place."""
    raise_opset(proto, UNPACKING_OPSET)
    editor = Editor(proto)
    for weight, found in weights_in(editor.index):
        if weight.name in forms:
            store_form(editor, found, weight, forms[weight.name])
    editor.apply()


def store_form(editor: Editor, found: FloatWeight, weight: Weight, form: WeightForm) -> None:
    """Stores one weight."""
    if isinstance(form, UniformWeight):
        _store_uniform(editor, found, weight, form)
    elif isinstance(form, CodebookWeight):
        _store_codebook(editor, found, weight, form)
    else:
        raise UnsupportedTechnique(f"{weight.name}: no ONNX form for {type(form).__name__}")


def _store_uniform(editor: Editor, found: FloatWeight, weight: Weight, form: UniformWeight) -> None:
    lookups = _lookups(found)
    if lookups:
        store_table(editor, found.value, weight, form, lookups)
    else:
        store_folded(editor, found.value, weight, form)


def _store_codebook(editor: Editor, found: FloatWeight, weight: Weight, form: CodebookWeight) -> None:
    lookups = _lookups(found)
    if lookups and form.blocks.counts == (1, 1):
        store_codebook_table(editor, found.value, weight, form, lookups)
    else:
        store_codebook(editor, found.value, weight, form)


def _lookups(found: FloatWeight) -> list[Place]:
    """Readers that look rows up."""
    return [reader.place for reader in found.readers if is_lookup(reader)] if len(found.tensor.dims) == 2 else []
