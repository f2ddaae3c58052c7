"""Writes corrected biases and smoothing into a graph."""

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from workers.compression.families.onnx.chains import Chain
from workers.compression.families.onnx.editing import Editor
from workers.compression.families.onnx.walking import array
from workers.compression.techniques.quantize.integer_layers.plan import Choice
from workers.compression.techniques.quantize.integer_layers.smoothing import SMOOTHING_STEPS

Floats = npt.NDArray[np.float32]


def shift_addition(editor: Editor, choice: Choice) -> None:
    """Adds a layer's shift to the vector that the addition behind it reads."""
    reader = choice.candidate.addition
    if reader is None or choice.shift is None:
        return
    place, slot = reader.place, reader.slot
    offset = editor.index.read(place, slot)
    if offset is None:
        return
    corrected = array(editor.index.stored[offset]).astype(np.float32) + choice.shift
    node = NodeProto()
    node.CopyFrom(place.node)
    node.input[slot] = editor.store(place.scope, f"{offset.name}_corrected", corrected)
    editor.replace(place, [node])
    editor.drop_unread([offset])


def smoothed(chain: Chain, source: str, factors: Floats) -> str:
    """``source`` divided by factors from ``smoothing_factors``; stored in a byte each, which they are exact in."""
    codes = np.rint(SMOOTHING_STEPS / factors).astype(np.uint8)
    step = chain.share("smoothing_step", np.array(1.0 / SMOOTHING_STEPS, np.float32))
    return chain.add("Mul", source, chain.add("Mul", chain.codes("smoothing", codes, 8), step))
