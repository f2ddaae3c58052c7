"""Adaptive range coding (Martin 1979): each bit has a probability that its context has learnt so far.

One method serves both directions: the writer codes the bit it is given and returns it, the reader ignores what it is
given and returns the bit it finds. So a format is described once, by the walk over its parts. Integers only: every
machine decodes the same.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Hashable, Sequence

import numpy as np

from workers.compression.coding.byte_stream import broken

_WHOLE = 1 << 48
_LOWEST = 1 << 32
_MASK = _WHOLE - 1
_WORDS = 3
_ONE = 1 << 16
_LEAST = 24
_MEMORY = 250
_STEPS = [_ONE * 10 // (10 * seen + 16) for seen in range(_MEMORY + 1)]
_LEARNT_BITS = 3
MAX_LENGTH = 64
MAX_TOTAL = 1 << 31


class RangeCoder(ABC):
    """What writer and reader share: the models of the contexts and what is coded as several bits."""

    def __init__(self) -> None:
        self._range = _WHOLE
        self._models: dict[Hashable, list[int]] = {}

    @abstractmethod
    def bit(self, context: Hashable, bit: int = 0) -> int:
        """One bit; what the same context held before says how likely it is."""

    @abstractmethod
    def choice(self, cumulative: Sequence[int], first: int, last: int, chosen: int = 0) -> int:
        """A number from ``first`` to below ``last``, as likely as ``cumulative[n + 1] - cumulative[n]`` says.

        Raises:
            InvalidModel: There is nothing to choose from.
        """

    def number(self, context: Hashable, value: int = 0) -> int:
        """A number from 0 to below 2**64: its length bit by bit, then its bits, the first of which are learnt.

        Raises:
            InvalidModel: What is read is longer.
        """
        wanted = (value + 1).bit_length() - 1
        length = 0
        while self.bit((context, length), int(length < wanted)):
            length += 1
            if length > MAX_LENGTH:
                raise broken("A number is out of its range")
        found = 1
        for place in range(length - 1, -1, -1):
            bit = value + 1 >> place & 1
            learnt = length - place <= _LEARNT_BITS
            found = found << 1 | (
                self.bit((context, length, found), bit) if learnt else self.choice(_HALVES, 0, 2, bit)
            )
        return found - 1

    def symbol(self, context: Hashable, bits: int, value: int = 0) -> int:
        """One of ``2**bits`` symbols, as a path through a binary tree of learnt bits."""
        found = 1
        for place in range(bits - 1, -1, -1):
            found = found << 1 | self.bit((context, found), value >> place & 1)
        return found - (1 << bits)

    def bits(self, count: int, value: int = 0) -> int:
        """A number of so many bits, all equally likely."""
        found = 0
        for place in range(count - 1, -1, -1):
            found = found << 1 | self.choice(_HALVES, 0, 2, value >> place & 1)
        return found

    def _model(self, context: Hashable) -> list[int]:
        model = self._models.get(context)
        if model is None:
            model = self._models[context] = [_ONE >> 1, 0]
        return model

    @staticmethod
    def _learn(model: list[int], bit: int) -> None:
        likely, seen = model
        likely += ((_ONE if bit else 0) - likely) * _STEPS[seen] >> 16
        model[0] = min(max(likely, _LEAST), _ONE - _LEAST)
        if seen < _MEMORY:
            model[1] = seen + 1


_HALVES = (0, 1, 2)


class RangeWriter(RangeCoder):
    """Codes what it is given; ``finish`` gives the bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._low = 0
        self._words: list[int] = []

    def bit(self, context: Hashable, bit: int = 0) -> int:
        """Codes the bit."""
        model = self._model(context)
        bound = (self._range >> 16) * model[0]
        if bit:
            self._range = bound
        else:
            self._low += bound
            self._range -= bound
        self._learn(model, bit)
        if self._range < _LOWEST:
            self._move()
        return bit

    def choice(self, cumulative: Sequence[int], first: int, last: int, chosen: int = 0) -> int:
        """Codes ``chosen``."""
        total = cumulative[last] - cumulative[first]
        step = self._range // total
        self._low += step * (cumulative[chosen] - cumulative[first])
        self._range = step * (cumulative[chosen + 1] - cumulative[chosen])
        while self._range < _LOWEST:
            self._move()
        return chosen

    def finish(self) -> bytes:
        """All that was coded."""
        for _ in range(_WORDS):
            self._move()
        return np.array(self._words, "<u2").tobytes()

    def _move(self) -> None:
        """The highest word is settled, but for a carry into it."""
        if self._low > _MASK:
            place = len(self._words) - 1
            while self._words[place] == 0xFFFF:
                self._words[place] = 0
                place -= 1
            self._words[place] += 1
            self._low &= _MASK
        self._words.append(self._low >> 32)
        self._low = (self._low << 16) & _MASK
        self._range <<= 16


class RangeReader(RangeCoder):
    """Gives back what a ``RangeWriter`` coded.

    Args:
        data: All that it wrote.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__()
        if len(data) % 2 or len(data) < 2 * _WORDS:
            raise broken("Coded numbers are cut off")
        self._words: list[int] = np.frombuffer(data, "<u2").tolist()
        self._code = self._words[0] << 32 | self._words[1] << 16 | self._words[2]
        self._position = _WORDS

    def bit(self, context: Hashable, bit: int = 0) -> int:
        """Reads a bit."""
        model = self._model(context)
        bound = (self._range >> 16) * model[0]
        bit = int(self._code < bound)
        if bit:
            self._range = bound
        else:
            self._code -= bound
            self._range -= bound
        self._learn(model, bit)
        if self._range < _LOWEST:
            self._move()
        return bit

    def choice(self, cumulative: Sequence[int], first: int, last: int, chosen: int = 0) -> int:
        """Reads a choice."""
        base = cumulative[first]
        total = cumulative[last] - base
        if total < 1:
            raise broken("There is nothing to choose from")
        step = self._range // total
        slot = min(self._code // step, total - 1)
        chosen = bisect_right(cumulative, slot + base, first, last + 1) - 1
        self._code -= step * (cumulative[chosen] - base)
        self._range = step * (cumulative[chosen + 1] - cumulative[chosen])
        if self._code >= self._range:
            raise broken("Coded numbers are damaged")
        while self._range < _LOWEST:
            self._move()
        return chosen

    def finish(self) -> None:
        """Checks that all was read.

        Raises:
            InvalidModel: There is more.
        """
        if self._position != len(self._words):
            raise broken("Coded numbers do not end where they should")

    def _move(self) -> None:
        if self._position >= len(self._words):
            raise broken("Coded numbers are cut off")
        self._code = self._code << 16 | self._words[self._position]
        self._position += 1
        self._range <<= 16
