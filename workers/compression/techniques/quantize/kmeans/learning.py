"""Codebooks whose values learn after k-means found them, each by the sum of its elements' gradients."""

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import as_trainable
from workers.compression.families.weights import CompressibleModel, Floats, Weight, as_compressible
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.specs.errors import InvalidResult
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.quantize_weights import KmeansQuantize
from workers.compression.techniques.quantize.kmeans.clustering import chosen_weights, codebooks, summarize
from workers.compression.training.recovery import recover
from workers.compression.training.substitutes import smallest_codebook_weight


def quantize_to_trained_codebooks(
    model: Model, spec: KmeansQuantize, recovery: RecoverFinetune, context: Context
) -> CompressibleModel:
    """Clusters the selected weights, trains the clusters' values and all that stayed float, and stores codes.

    Which element has which value does not change any more (Han et al., arXiv:1510.00149, section 3.3).
    """
    learner = as_trainable(model)
    compressible = as_compressible(learner)
    large, _ = chosen_weights(compressible, spec)
    before, after = context.windows(2)
    context.window = before
    forms = dict(codebooks(compressible, spec, context, smallest=smallest_codebook_weight(1 << spec.bits)))
    compressible.replace((weight, form.restored()) for weight, form in forms.items())
    context.window = after
    recover(learner, recovery, context)
    compressible.store((weight, _with_learnt_values(compressible, weight, form)) for weight, form in forms.items())
    summarize(len(forms), len(large), spec, context)
    return compressible


def _with_learnt_values(model: CompressibleModel, weight: Weight, form: CodebookWeight) -> CodebookWeight:
    """The same codes, in the order of the values that they stand for now; values that nothing has are left out."""
    matrix = model.matrix(weight)
    used, places = np.unique(form.codes, return_index=True)
    values: Floats = matrix.reshape(-1)[places]
    order = np.argsort(values, kind="stable")
    codes = np.zeros(256, np.uint8)
    codes[used[order]] = np.arange(len(used), dtype=np.uint8)
    learnt = CodebookWeight(codes[form.codes], values[order].reshape(1, 1, -1), form.bits, form.blocks)
    if not np.array_equal(learnt.restored(), matrix):
        raise InvalidResult(f"{weight.layer}: training did not keep which elements share a value.")
    return learnt
