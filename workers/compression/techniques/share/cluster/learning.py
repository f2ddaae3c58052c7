"""One codebook for all layers whose values learn, each by the sum of the gradients of all its elements."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch

from workers.compression.context import Context
from workers.compression.families.model import Model
from workers.compression.families.trainable import Trainable, as_trainable
from workers.compression.families.weights import CompressibleModel, Floats, Weight, as_compressible
from workers.compression.quantization.codebook import CodebookWeight, GroupScales
from workers.compression.quantization.kmeans import in_half_precision
from workers.compression.specs.errors import UnsupportedTechnique
from workers.compression.specs.steps.finetune import RecoverFinetune
from workers.compression.specs.steps.share import ClusterShare
from workers.compression.techniques.share.cluster.clustering import coded, large_weights, summarize
from workers.compression.training.recovery import recover
from workers.compression.training.substitutes import Codebook, Coded


def cluster_and_train(
    model: Model, spec: ClusterShare, recovery: RecoverFinetune, context: Context
) -> CompressibleModel:
    """Clusters the selected weights, trains codebook, scales and all that stayed float, and stores codes.

    Which element has which value, and which group which scale, does not change any more (Han et al., arXiv:1510.00149,
    section 3.3).

    Raises:
        UnsupportedTechnique: No weight is selected, or one takes no part in what trains.
    """
    learner = as_trainable(model)
    compressible = as_compressible(learner)
    large = large_weights(compressible)
    before, after = context.windows(2)
    context.window = before
    forms = list(coded(compressible, spec, context))
    coders: list[Coded] = []

    def instead(trainable: Trainable) -> Mapping[str, torch.nn.Module]:
        names = _names(trainable, [weight for weight, _ in forms])
        coders.extend(_coders(forms))
        return dict(zip(names, coders, strict=True))

    if forms:
        context.window = after
        recover(learner, recovery, context, instead)
        compressible.store(_learnt(forms, coders))
    summarize(len(forms), large, spec, context)
    return compressible


def _names(trainable: Trainable, weights: list[Weight]) -> list[str]:
    named = {known: name for name, known in trainable.names.items()}
    for weight in weights:
        if weight.name not in named:
            raise UnsupportedTechnique(
                f"{weight.layer}: the weight {weight.name} takes no part in what trains.", hint="Exclude the layer."
            )
    return [named[weight.name] for weight in weights]


def _coders(forms: list[tuple[Weight, CodebookWeight]]) -> Iterator[Coded]:
    """Modules over one codebook, with indices in the shape in which the weights are stored."""
    book = Codebook(torch.from_numpy(forms[0][1].codebooks.reshape(-1)))
    for weight, form in forms:
        scales = _scales(form)
        places = np.repeat(scales.codes, scales.length, axis=1)
        yield Coded(
            book,
            torch.from_numpy(weight.from_matrix(form.codes)),
            Codebook(torch.from_numpy(scales.values)),
            torch.from_numpy(weight.from_matrix(places)),
        )


def _learnt(forms: list[tuple[Weight, CodebookWeight]], coders: list[Coded]) -> Iterator[tuple[Weight, CodebookWeight]]:
    """The same codes in the order of the values that they stand for now."""
    book = _values(coders[0].book)
    order = np.argsort(book, kind="stable")
    entries = book[order][None, None]
    renamed = np.zeros(256, np.uint8)
    renamed[order] = np.arange(len(order), dtype=np.uint8)
    for (weight, form), coder in zip(forms, coders, strict=True):
        scales = replace(_scales(form), values=_values(coder.scales))
        yield weight, replace(form, codes=renamed[form.codes], codebooks=entries, scales=scales)


def _values(book: Codebook) -> Floats:
    learnt: Floats = in_half_precision(book.forward().detach().cpu().numpy()[None])[0]
    return learnt


def _scales(form: CodebookWeight) -> GroupScales:
    if form.scales is None:
        raise TypeError("a shared codebook goes with scales")
    return form.scales
