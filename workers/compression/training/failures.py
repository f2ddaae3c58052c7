"""What torch says when a network cannot be trained, in words that help a user."""

from collections.abc import Iterator
from contextlib import contextmanager

from workers.compression.specs.errors import UnsupportedOperator

_DETERMINISM = "does not have a deterministic implementation"
_CALLING = (RuntimeError, IndexError, TypeError, ValueError, AssertionError)
"""What a network raises on inputs that it was not made for: exported guards are assertions."""


@contextmanager
def explaining_calls() -> Iterator[None]:
    """Around a call of the network.

    Raises:
        UnsupportedOperator: The network refuses the inputs, or an operator cannot do what is asked for.
    """
    try:
        yield
    except _CALLING as error:
        raise explained(error) from error


@contextmanager
def explaining_gradients() -> Iterator[None]:
    """Around all else, where what is not torch's is a fault of this program.

    Raises:
        UnsupportedOperator: An operator has no derivative, or no deterministic one.
    """
    try:
        yield
    except RuntimeError as error:
        raise explained(error) from error


def explained(error: Exception) -> Exception:
    """The error as a refusal; lack of memory stays as it is, and is told by whoever watches this process."""
    said = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
    if "alloc" in said:
        return error
    if _DETERMINISM in said:
        return UnsupportedOperator(
            f"The model cannot be trained deterministically: {said}",
            reason="not_deterministic",
            hint='Set "deterministic": false.',
        )
    return UnsupportedOperator(f"The model cannot be trained on these rows: {said}", reason="not_trainable")
