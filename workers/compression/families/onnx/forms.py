"""Puts the integer, codebook and narrower float forms of weights into a graph that restores them."""

import itertools
from collections.abc import Iterable

from onnx import ModelProto

from workers.compression.families.onnx.codebook_forms import store_codebook, store_codebook_table
from workers.compression.families.onnx.editing import Editor, opset_of, raise_opset
from workers.compression.families.onnx.float_forms import BFLOAT16_OPSET, store_floats
from workers.compression.families.onnx.float_weights import FloatWeight
from workers.compression.families.onnx.matrices import is_lookup, weights_in
from workers.compression.families.onnx.packed_products import stays_packed, store_packed
from workers.compression.families.onnx.table_forms import store_table
from workers.compression.families.onnx.uniform_forms import store_folded
from workers.compression.families.onnx.unpacking import UNPACKING_OPSET
from workers.compression.families.onnx.walking import Place
from workers.compression.families.weights import FloatForm, Weight, WeightForm
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.uniform import UniformWeight
from workers.compression.specs.errors import UnsupportedTechnique

MAX_FOLDED_BYTES = 1 << 30
"""What onnxruntime folds at most."""

_FLOAT_BYTES = 4


def store_forms(proto: ModelProto, forms: Iterable[tuple[Weight, WeightForm]]) -> None:
    """Stores weights in other forms, one at a time; in place. The first form says which opset all of them need."""
    waiting = iter(forms)
    first = next(waiting, None)
    if first is None:
        return
    raise_opset(proto, _opset_for(first[1]))
    editor = Editor(proto)
    places = {weight.name: found for weight, found in weights_in(editor.index)}
    for weight, form in itertools.chain([first], waiting):
        if opset_of(proto) < _opset_for(form):
            raise UnsupportedTechnique(f"{weight.name} as {_name(form)} needs ONNX opset {_opset_for(form)}.")
        store_form(editor, places[weight.name], weight, form)
    editor.apply()


def store_form(editor: Editor, found: FloatWeight, weight: Weight, form: WeightForm) -> None:
    """Stores one weight."""
    if isinstance(form, UniformWeight):
        _store_uniform(editor, found, weight, form)
    elif isinstance(form, CodebookWeight):
        _store_codebook(editor, found, weight, form)
    else:
        store_floats(editor, found, weight, form)


def why_not(weight: Weight, form: WeightForm) -> str | None:
    """Why a weight cannot be stored so, as the rest of "it stays float32: ..."; nothing of it is computed."""
    if weight.role != "embedding" and weight.size * _FLOAT_BYTES > MAX_FOLDED_BYTES:
        return "restored it takes more than 1 GiB, which onnxruntime does not fold when it loads a model"
    if isinstance(form, CodebookWeight) and form.blocks.counts[1] > 1:
        return "its codebooks are for parts of rows"
    return None


def _opset_for(form: WeightForm) -> int:
    if isinstance(form, FloatForm):
        return BFLOAT16_OPSET if form.dtype == "bfloat16" else UNPACKING_OPSET
    return UNPACKING_OPSET


def _name(form: WeightForm) -> str:
    return form.dtype if isinstance(form, FloatForm) else type(form).__name__


def _store_uniform(editor: Editor, found: FloatWeight, weight: Weight, form: UniformWeight) -> None:
    lookups = _lookups(found)
    if lookups:
        store_table(editor, found.value, weight, form, lookups)
    elif stays_packed(found, weight, form):
        store_packed(editor, found, form)
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
