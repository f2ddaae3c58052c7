"""Tying of Hugging Face models, as far as stock transformers can be told of it: the table and the layer that reads it.

A tensor that is missing from the file is filled at random when transformers loads it, unless the class itself ties it
to another, and safetensors refuses two names for the same bytes.
"""

from functools import partial

from workers.compression.context import Context
from workers.compression.families.model import Array
from workers.compression.families.tensors.stored import StoredTensor, to_numpy
from workers.compression.families.torch.transformer_model import TransformerModel
from workers.compression.families.torch.transformer_sharing import tie, tieable
from workers.compression.similarity.ties import find_ties
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.share import TieShare
from workers.compression.techniques.share.tie.finding import shared_among, summarize


def tie_output_to_embeddings(model: TransformerModel, spec: TieShare, context: Context) -> TransformerModel:
    """Ties the output layer to the embeddings if they are the same, in place.

    Raises:
        UnsupportedTechnique: Only other tensors repeat.
    """
    tensors = {name: partial(_values, tensor) for name, tensor in model.parameters() if name not in model.quantized}
    pair = tieable(model)
    known = {name: tensors.pop(name) for name in pair if name in tensors} if pair is not None else {}
    shared, changed = shared_among(known, spec, context)
    repeated = find_ties(tensors, spec.tolerance).shared
    size = sum(tensors[name]().nbytes for name in repeated)
    reason = f"{len(repeated)} tensors of {size} bytes repeat that stock transformers cannot load tied"
    if repeated and not shared:
        raise UnsupportedTechnique(
            f"{reason}: it fills at random what a file lacks, {next(iter(repeated))} for one.",
            hint="Export the model to ONNX or with torch.export: there any tensors can be tied.",
        )
    if repeated:
        context.warn(f"{reason}; they stay as they are.")
    saved = sum(known[name]().nbytes for name in shared)
    if shared:
        tie(model, next((values for _, values in changed), None))
    summarize(len(shared), saved, spec, context)
    return model


def _values(tensor: StoredTensor) -> Array:
    return to_numpy(tensor.load())
