"""What each technique was seen to do on a real model; without a row here a technique is not offered.

``evidence.json`` and ``EVIDENCE.md`` are written together by ``make evidence`` and by nothing else.
"""

from importlib import resources

from pydantic import Field, TypeAdapter

from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Text
from workers.compression.specs.metrics import Count, Finite
from workers.compression.specs.step import Contract


class Evidence(Contract):
    """One measured run of a technique beside the best peer that does the same."""

    technique: Text = Field(description="``technique.method``.")
    format: ModelFormat
    model: Text
    data: Text
    bytes_original: Count
    bytes_artifact: Count
    metric: Text
    original: Finite | None = Field(None, description="None where the original has no answer, as to new labels.")
    compressed: Finite
    fidelity_cosine: Finite | None = None
    peer: Text
    peer_bytes: Count | None = None
    peer_value: Finite | None = None
    peer_cosine: Finite | None = None
    command: Text


def load_evidence() -> tuple[Evidence, ...]:
    """The rows that ship with this version."""
    raw = resources.files("workers.compression.specs").joinpath("evidence.json").read_bytes()
    return TypeAdapter(tuple[Evidence, ...]).validate_json(raw)


EVIDENCE = load_evidence()
