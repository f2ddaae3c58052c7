"""Decoding of zstd frames (RFC 8878) whose size is known beforehand."""

import zstandard

from workers.compression.coding.byte_stream import broken

_MAX_WINDOW = 1 << 27


def unzstd(data: bytes | memoryview, size: int) -> bytes:
    """Decodes a zstd frame that has to hold exactly ``size`` bytes, which bounds what is allocated.

    Raises:
        InvalidModel: It holds another number of bytes, or is malformed.
    """
    try:
        if zstandard.frame_content_size(data) != size:
            raise broken("A zstd frame has another size than stated")
        return zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompress(
            data, max_output_size=size, allow_extra_data=False
        )
    except (zstandard.ZstdError, MemoryError) as error:
        raise broken("A zstd frame cannot be decoded") from error
