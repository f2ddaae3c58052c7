"""Codebooks for the weights of a model of any format."""

from collections.abc import Iterator, Mapping

import numpy as np

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import (
    CompressibleModel,
    Floats,
    Weight,
    WeightForm,
    as_compressible,
    finite_matrix,
    selected,
)
from workers.compression.quantization.blocks import Blocks
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.kmeans import Clustering, cluster, codebook_bytes
from workers.compression.quantization.resuming import resumed
from workers.compression.quantization.scaled_kmeans import cluster_with_scales, group_length
from workers.compression.specs.errors import DatasetMismatch, UnsupportedTechnique
from workers.compression.specs.steps.quantize_weights import KmeansQuantize

SMALLEST = 512
"""Elements of a weight; what restores a smaller one takes more than its codes save."""


def quantize_to_codebooks(model: Model, spec: KmeansQuantize, context: Context) -> CompressibleModel:
    """Stores the selected weights as codes into codebooks found by k-means; see ``codebooks``."""
    model = as_compressible(model)
    large, _ = chosen_weights(model, spec)
    done = 0

    def counted() -> Iterator[tuple[Weight, WeightForm]]:
        nonlocal done
        for made in codebooks(model, spec, context):
            done += 1
            yield made

    model.store(counted())
    summarize(done, len(large), spec, context)
    return model


def summarize(done: int, large: int, spec: KmeansQuantize, context: Context) -> None:
    """Says what was done."""
    shared = {"tensor": "each", "channel": "for each output channel", "group": f"for every {spec.group_size} channels"}
    context.changed(
        f"{done} of {large} weights of at least {SMALLEST:,} values stored as {spec.bits}-bit codes, one codebook "
        f"{shared[spec.granularity]}"
    )


def chosen_weights(model: CompressibleModel, spec: KmeansQuantize) -> tuple[list[Weight], list[Weight]]:
    """All weights worth quantizing, and those of them that the step names.

    Raises:
        UnsupportedTechnique: There are none.
    """
    large, chosen = selected(model, spec.include, spec.exclude, SMALLEST)
    if not chosen:
        raise UnsupportedTechnique(
            f"No weight of at least {SMALLEST} values is selected.", hint="Check include and exclude."
        )
    return large, chosen


def codebooks(
    model: CompressibleModel, spec: KmeansQuantize, context: Context, smallest: int = SMALLEST
) -> Iterator[tuple[Weight, CodebookWeight]]:
    """Codes and codebooks of the selected weights, one after the other; tells of those that stay as they are.

    Args:
        smallest: Elements of a weight; smaller ones stay as they are.
    """
    _, chosen = chosen_weights(model, spec)
    importance = _importance(model, chosen, spec, context)

    def make(weight: Weight) -> CodebookWeight | None:
        blocks = blocks_of(weight, spec)
        if weight.size < smallest:
            context.warn(f"{weight.layer} stays {weight.dtype}: codebooks of less than {smallest} values do not learn.")
            return None
        length = group_length(weight.matrix_shape[1], spec.scale_group) if spec.scale_group else 0
        scales = weight.size // length if length else 0
        if codebook_bytes(blocks, spec.bits, scales) >= weight.stored_bytes:
            context.warn(f"{weight.layer} stays {weight.dtype}: its codebooks would take more than its values do.")
            return None
        matrix = finite_matrix(model, weight)
        wanted = Clustering(spec.bits, spec.initialization, context.seed)
        counts = importance.get(weight.name)
        form = (
            cluster_with_scales(matrix, length, wanted, counts) if length else cluster(matrix, blocks, wanted, counts)
        )
        reason = model.why_not(weight, form)
        if reason is not None:
            context.warn(f"{weight.layer} stays {weight.dtype}: {reason}")
            return None
        return form

    # Where training follows, the step's checkpoints are the training's.
    made = resumed(chosen, make, spec, context) if spec.recovery is None else ((found, make(found)) for found in chosen)
    for weight, form in made:
        if isinstance(form, CodebookWeight):
            yield weight, form


def blocks_of(weight: Weight, spec: KmeansQuantize) -> Blocks:
    """Which rows of a weight's matrix share a codebook; groups are of equal size as far as that goes."""
    rows, columns = weight.matrix_shape
    groups = -(-rows // spec.group_size)
    lengths = {"tensor": rows, "channel": 1, "group": -(-rows // groups)}
    return Blocks(weight.matrix_shape, (lengths[spec.granularity], columns))


def _importance(
    model: CompressibleModel, weights: list[Weight], spec: KmeansQuantize, context: Context
) -> Mapping[str, Floats]:
    """Mean square of what each column is multiplied with, by weight; only where it can be watched."""
    if spec.sensitivity == "none":
        return {}
    dataset = context.any_data()
    if dataset is None:
        raise DatasetMismatch("What activations enter each layer is seen on calibration data; none was given.")
    watched = model.layer_inputs(weights, dataset.limited(spec.samples), context.threads)
    found = {weight.name: np.array(np.diagonal(inputs.gram), np.float32) for weight, inputs in watched}
    unseen = [weight.layer for weight in weights if weight.name not in found]
    if unseen:
        others = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        context.warn(f"All weights of {unseen[0]}{others} count the same: what enters the layer cannot be watched.")
    return found
