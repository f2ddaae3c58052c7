"""From a trained network to one whose blocks share matrices, whatever file holds it."""

from collections.abc import Callable, Mapping

from workers.compression.context import Context
from workers.compression.families.trainable import Trainable, TrainableModel
from workers.compression.families.weights import CompressibleModel, Weight, as_compressible, finite_matrix
from workers.compression.specs.errors import NothingCompressed, UnsupportedTechnique
from workers.compression.specs.steps.share import CrossLayerShare
from workers.compression.techniques.share.cross_layer.blocks import Kind, Sharing, alike_blocks, named, stored_bytes
from workers.compression.techniques.share.cross_layer.choosing import choose, costs_of, initial_values, yardstick_of
from workers.compression.training import lessons
from workers.compression.training.recovery import recover

Ties = Mapping[str, str]
"""Names of stored tensors, each mapped to the one that is stored in its place."""


def share_across_layers(
    model: TrainableModel,
    storable: Callable[[str], bool],
    tie: Callable[[Ties], None],
    spec: CrossLayerShare,
    context: Context,
) -> None:
    """Chooses which blocks share, ties their matrices and trains the model, in place.

    Args:
        storable: Whether the file can hold a tensor of that name once for several readers.
        tie: Ties tensors of the model.

    Raises:
        UnsupportedTechnique: No two blocks are alike.
        NothingCompressed: None has to share.
        DatasetMismatch: There are no training rows.
        NumericalFailure: A matrix holds NaN or infinity.
    """
    lessons.training_rows(spec.recovery, context)  # refused before the search, which may take long
    compressible = as_compressible(model)
    kinds = _kinds(compressible, model.trainable(), storable, spec)
    before, after = context.windows(2)
    context.window = before
    sharing = _found(compressible, kinds, spec, context)
    if not sharing:
        raise NothingCompressed(
            "All alike blocks may keep their matrices.",
            hint="Give fewer copies than there are, or a smaller max_bytes.",
        )
    context.window = after
    tie({taken.name: kept.name for taker, giver in sharing.items() for taken, kept in zip(taker, giver, strict=True)})
    recover(model, spec.recovery, context)
    blocks, saved = sum(map(len, kinds)), sum(map(stored_bytes, sharing))
    context.changed(
        f"{blocks - len(sharing)} of {blocks} alike blocks keep matrices, which the others share, saving {saved} bytes"
    )


def _kinds(
    model: CompressibleModel, trainable: Trainable, storable: Callable[[str], bool], spec: CrossLayerShare
) -> list[Kind]:
    chosen = [one for one in model.weights() if storable(one.name) and one.is_selected(spec.include, spec.exclude)]
    groups = [[trainable.names[name] for name in group] for group in trainable.layers]
    kinds = alike_blocks(groups, chosen)
    if not kinds:
        raise UnsupportedTechnique(
            "No two of the selected layers or blocks have matrices of the same shapes.",
            hint="Check include and exclude.",
        )
    return kinds


def _found(model: CompressibleModel, kinds: list[Kind], spec: CrossLayerShare, context: Context) -> Sharing:
    """Which blocks share; those that serve others have their first values afterwards."""
    weights: list[Weight] = [weight for kind in kinds for block in kind for weight in block]
    for weight in weights:
        finite_matrix(model, weight)
    size = sum(weight.stored_bytes for weight in model.weights())
    model.threads(context.threads)
    try:
        yardstick = yardstick_of(model, spec, context)
        sharing = choose(kinds, [costs_of(model, kind, yardstick, context) for kind in kinds], spec, size)
        values = list(initial_values(model, sharing, yardstick))
    finally:
        model.threads(context.target.threads)
    model.replace(values)
    for taker, giver in sharing.items():
        context.log(f"the block of {named(taker)} computes with the matrices of {named(giver)}")
    return sharing
