"""What a torch checkpoint's pickle may say, checked on its opcodes before anything interprets it.

``torch.load(weights_only=True)`` calls a handful of functions that a state dict never needs, ``bytearray`` of any
length among them; so only the opcodes and globals of a dictionary of tensors pass.
"""

import pickletools
from typing import Final

from workers.compression.specs.errors import InvalidModel, TooLarge, UnsafeModel

MAX_PICKLE_BYTES: Final = 32 << 20
_MAX_OPCODES: Final = 5_000_000

_STORAGES = (
    "Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
)  # fmt: skip
_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
        "torch.storage UntypedStorage",
        *(f"torch {name}Storage" for name in _STORAGES),
        *(f"torch {name}" for name in ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")),
    }
)
_OPCODES = frozenset(
    {
        "PROTO", "FRAME", "STOP", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "MARK", "POP", "POP_MARK",
        "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS",
        "EMPTY_DICT", "SETITEM", "SETITEMS", "NONE", "NEWTRUE", "NEWFALSE",
        "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING",
        "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    }
)  # fmt: skip


def check_pickle(content: bytes) -> None:
    """Raises unless ``content`` can only build dictionaries, plain values and tensors.

    Raises:
        UnsafeModel: It names a global, or uses an opcode, that a state dict never needs.
        InvalidModel: It is no well-formed pickle.
        TooLarge: It is longer than any real checkpoint's.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise TooLarge("The checkpoint's object description is over 32 MiB.", reason="checkpoint_invalid")
    count, end = 0, 0
    try:
        for opcode, argument, position in pickletools.genops(content):
            count, end = count + 1, (position or 0) + 1
            _check_opcode(opcode.name, argument)
            if count > _MAX_OPCODES:
                raise TooLarge("The checkpoint describes far too many objects.", reason="checkpoint_invalid")
    except (ValueError, OverflowError) as error:
        raise InvalidModel("The checkpoint's object description is damaged.", reason="checkpoint_invalid") from error
    if end != len(content):
        raise InvalidModel("The checkpoint has bytes behind its object description.", reason="checkpoint_invalid")


def _check_opcode(name: str, argument: object) -> None:
    if name == "GLOBAL" and argument not in _GLOBALS:
        raise UnsafeModel(
            f"The checkpoint refers to {str(argument).replace(' ', '.')[:200]}, which is no part of a state dict.",
            reason="checkpoint_unsafe_global",
            hint="Save only the weights: torch.save(model.state_dict(), path).",
        )
    if name not in _OPCODES:
        raise UnsafeModel(
            f"The checkpoint's pickle uses the opcode {name}, which no state dict needs.",
            reason="checkpoint_unsafe_global",
            hint="Save only the weights: torch.save(model.state_dict(), path).",
        )
