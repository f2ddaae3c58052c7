"""Runs a model with some of its intermediate values as further outputs."""

from collections.abc import Iterable, Iterator, Sequence

import onnxruntime
from onnx import ModelProto, ValueInfoProto

from workers.compression.families.model import Array, Feeds
from workers.compression.families.onnx.sessions import open_session


def observe(
    proto: ModelProto, names: Sequence[str], batches: Iterable[Feeds], threads: int = 1
) -> Iterator[dict[str, Array]]:
    """Values by name for each batch, one batch in memory at a time.

    Args:
        proto: The model; unchanged afterwards.
        names: Values of the main graph.
        batches: Feeds as for ``run``.
    """
    session = _session(proto, names, threads)
    wanted = {value.name for value in session.get_inputs()}
    for feeds in batches:
        results = session.run(list(names), {name: values for name, values in feeds.items() if name in wanted})
        yield dict(zip(names, results, strict=True))


def _session(proto: ModelProto, names: Sequence[str], threads: int) -> onnxruntime.InferenceSession:
    declared = {value.name for value in proto.graph.output}
    kept = len(proto.graph.output)
    proto.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in declared)
    try:
        return open_session(proto.SerializeToString(), threads, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    finally:
        del proto.graph.output[kept:]
