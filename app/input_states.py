"""The life of what jobs work on: a model or dataset is inspected once, and then ready or rejected for good."""

from enum import StrEnum


class InputState(StrEnum):
    """Where an uploaded model or dataset stands."""

    INSPECTING = "inspecting"
    READY = "ready"
    REJECTED = "rejected"
