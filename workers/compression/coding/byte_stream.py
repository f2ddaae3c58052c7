"""Reading and writing the small pieces of coded data: variable-length numbers, bounded slices."""

from workers.compression.specs.errors import InvalidModel

_MAX_BITS = 63


def broken(what: str) -> InvalidModel:
    """The error for coded data that no encoder of ours wrote."""
    return InvalidModel(
        f"Not a valid archive, or a damaged one. {what}.",
        reason="prsz_invalid",
        hint="Fetch the file again and compare its sha256.",
    )


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the high bit set on all but the last."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


class Reader:
    """A cursor over bytes; reading past the end is an error of ours.

    Args:
        data: All there is.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._position = 0

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._position

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes."""
        if size > self.left:
            raise broken("It ends too early")
        self._position += size
        return self._data[self._position - size : self._position]

    def rest(self) -> memoryview:
        """All that is left."""
        return self.take(self.left)

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self, limit: int) -> int:
        """The next number.

        Raises:
            InvalidModel: It is over ``limit``, or not written in the shortest way.
        """
        value = 0
        for shift in range(0, _MAX_BITS, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > limit or (byte == 0 and shift):
                    break
                return value
        raise broken("A number is out of its range")
