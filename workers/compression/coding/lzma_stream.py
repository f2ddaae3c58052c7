"""Raw LZMA streams: smaller than zstd on a few kilobytes, such as the graph of a small model; slower to decode."""

import lzma

from workers.compression.coding.byte_stream import broken

# No bits of the literal's place or of the byte before it: there is too little data to learn them from.
_FILTERS = [{"id": lzma.FILTER_LZMA1, "preset": 9, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]


def encode(content: bytes) -> bytes:
    """Codes up to a mebibyte."""
    return lzma.compress(content, format=lzma.FORMAT_RAW, filters=_FILTERS)


def decode(data: bytes | memoryview, size: int) -> bytes:
    """The ``size`` bytes that ``encode`` coded.

    Raises:
        InvalidModel: It holds another number of bytes, or is malformed.
    """
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        content = decoder.decompress(data, max_length=size + 1)
    except lzma.LZMAError as error:
        raise broken("An LZMA stream cannot be decoded") from error
    if len(content) != size or not decoder.eof or decoder.unused_data:
        raise broken("An LZMA stream has another size than stated")
    return content
