"""One codebook for the weights of a model of any format."""

from collections.abc import Iterator

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.weights import (
    CompressibleModel,
    Weight,
    WeightForm,
    as_compressible,
    finite_matrix,
    selected,
)
from workers.compression.quantization.codebook import CodebookWeight
from workers.compression.quantization.kmeans import Clustering
from workers.compression.quantization.resuming import resumed
from workers.compression.quantization.scaled_kmeans import group_length
from workers.compression.quantization.shared_kmeans import coded_by, coded_bytes, shared_codebook
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.share import ClusterShare

SMALLEST = 1024
"""Elements of a weight; what restores a smaller one takes more than its codes save."""


def cluster_together(model: Model, spec: ClusterShare, context: Context) -> CompressibleModel:
    """Stores the selected weights as codes into one codebook; see ``coded``."""
    model = as_compressible(model)
    large = large_weights(model)
    done = 0

    def counted() -> Iterator[tuple[Weight, WeightForm]]:
        nonlocal done
        for made in coded(model, spec, context):
            done += 1
            yield made

    model.store(counted())
    summarize(done, large, spec, context)
    return model


def large_weights(model: CompressibleModel) -> int:
    """How many weights are worth storing as codes."""
    return len(selected(model, (), (), SMALLEST)[0])


def summarize(done: int, large: int, spec: ClusterShare, context: Context) -> None:
    """Says what was done."""
    context.changed(
        f"{done} of {large} weights of at least {SMALLEST:,} values stored as {spec.bits}-bit codes into one codebook"
    )


def coded(model: CompressibleModel, spec: ClusterShare, context: Context) -> Iterator[tuple[Weight, CodebookWeight]]:
    """Codes, scales and the one codebook of the selected weights, one after the other; tells of those that stay.

    Raises:
        UnsupportedTechnique: No weight is selected.
        NumericalFailure: A weight holds NaN or infinity.
    """
    _, chosen = selected(model, spec.include, spec.exclude, SMALLEST)
    chosen = [weight for weight in chosen if _pays(weight, spec, context)]
    if not chosen:
        raise UnsupportedTechnique(
            f"No weight of at least {SMALLEST} values is selected.", hint="Check include and exclude."
        )
    wanted = Clustering(spec.bits, seed=context.seed)
    book = shared_codebook(((finite_matrix(model, weight), _length(weight, spec)) for weight in chosen), wanted)

    def make(weight: Weight) -> CodebookWeight | None:
        form = coded_by(model.matrix(weight), _length(weight, spec), book, wanted)
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


def _length(weight: Weight, spec: ClusterShare) -> int:
    """Inputs that share a scale."""
    columns = weight.matrix_shape[1]
    return group_length(columns, spec.scale_group) if spec.scale_group else columns


def _pays(weight: Weight, spec: ClusterShare, context: Context) -> bool:
    pays = coded_bytes(weight.size, _length(weight, spec), spec.bits) < weight.stored_bytes
    if not pays:
        context.warn(f"{weight.layer} stays {weight.dtype}: its codes and scales would take more than its values do.")
    return pays
