"""How compressed-tensors describes the quantization of a group of weights, in ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from workers.compression.specs.errors import InvalidModel, UnsupportedFormat

PACKED: Final = "pack-quantized"
INTEGERS: Final = "int-quantized"
FLOATS: Final = "float-quantized"
_NAIVE: Final = "naive-quantized"
_SERVED: Final = (PACKED, INTEGERS, FLOATS, _NAIVE)
_REASON: Final = "hf_quantization"
_MAX_GROUPS: Final = 1000
_MAX_TARGETS: Final = 100_000
_MAX_LENGTH: Final = 1 << 24

Kind = Literal["int", "float"]
Strategy = Literal["tensor", "channel", "group", "block"]
_STRATEGIES: Final[tuple[Strategy, ...]] = ("tensor", "channel", "group", "block")


@dataclass(frozen=True)
class Scheme:
    """One way to quantize.

    Args:
        kind: Integers or 8-bit floats.
        bits: 2 to 8.
        symmetric: Whether zero is stored as 0.
        strategy: What shares a scale.
        lengths: (rows, columns) of a group or block; None for tensor and channel.
        format: How the weights lie in the file.
    """

    kind: Kind
    bits: int
    symmetric: bool
    strategy: Strategy
    lengths: tuple[int, int] | None
    format: str

    @property
    def packs_zero_points(self) -> bool:
        """Whether zero points lie in words of 32 bits, as weights do."""
        return not self.symmetric and self.format == PACKED and self.strategy in ("channel", "group")

    def block_lengths(self, rows: int, columns: int) -> tuple[int, int]:
        """(rows, columns) that share a scale, in a matrix of this shape."""
        if self.lengths is not None:
            return min(self.lengths[0], rows), min(self.lengths[1], columns)
        return (rows if self.strategy == "tensor" else 1), columns

    def arguments(self) -> dict[str, Any]:
        """The entry ``weights`` of a group."""
        found: dict[str, Any] = {
            "num_bits": self.bits,
            "type": self.kind,
            "symmetric": self.symmetric,
            "strategy": self.strategy,
            "dynamic": False,
        }
        if self.strategy == "group" and self.lengths is not None:
            found["group_size"] = self.lengths[1]
        if self.strategy == "block" and self.lengths is not None:
            found["block_structure"] = list(self.lengths)
        return found


def group_of(scheme: Scheme, targets: list[str]) -> dict[str, Any]:
    """A group whose targets are named one by one, so that nothing else is touched on loading."""
    return {"targets": targets, "weights": scheme.arguments(), "input_activations": None, "format": scheme.format}


def schemes_of(config: Any) -> list[tuple[Scheme, frozenset[str]]]:
    """The groups of somebody's ``quantization_config`` with their targets.

    Raises:
        UnsupportedFormat: Another layout, or one in which more than weights is quantized.
        InvalidModel: The groups are described in an impossible way.
    """
    if not isinstance(config, dict) or config.get("quant_method") != "compressed-tensors":
        raise _unserved("The weights are quantized in a layout that is not served.")
    for key in ("kv_cache_scheme", "transform_config"):
        if config.get(key):
            raise _unserved(f"The model needs {key}, which is not served: only weights may be quantized.")
    sparsity = config.get("sparsity_config")
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
        raise _unserved("The weights are stored as sparse ones, which is not served.")
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not 0 < len(groups) <= _MAX_GROUPS:
        raise InvalidModel("quantization_config has no config_groups.", reason=_REASON)
    return [_scheme(group, config.get("format")) for group in groups.values()]


def _scheme(group: Any, default_format: Any) -> tuple[Scheme, frozenset[str]]:
    if not isinstance(group, dict) or not isinstance(group.get("weights"), dict):
        raise _unserved("A config group does not say how its weights are quantized.")
    if group.get("input_activations") or group.get("output_activations"):
        raise _unserved("Activations are quantized too; only weights may be.")
    stored = group.get("format") or default_format
    weights: dict[str, Any] = group["weights"]
    kind, bits, strategy = weights.get("type", "int"), weights.get("num_bits", 8), _strategy(weights)
    fits = kind == "int" or (bits == 8 and stored != PACKED)
    if stored not in _SERVED or kind not in ("int", "float") or not _is_number(bits, 2, 8) or not fits:
        raise _unserved(f"{str(bits)[:10]}-bit {str(kind)[:20]} weights stored as {str(stored)[:50]!r} are not served.")
    if weights.get("dynamic") or weights.get("actorder") in ("group", "dynamic", True):
        raise _unserved("Weights whose scales are not stored in order are not served.")
    scheme = Scheme(
        kind=kind,
        bits=bits,
        symmetric=weights.get("symmetric", True) is True,
        strategy=strategy,
        lengths=_lengths(weights, strategy),
        format=stored,
    )
    return scheme, _targets(group.get("targets"))


def _strategy(weights: Mapping[str, Any]) -> Strategy:
    named = weights.get("strategy")
    if named is None:
        size = weights.get("group_size")
        named = "tensor" if size is None else "channel" if size == -1 else "group"
    found = next((strategy for strategy in _STRATEGIES if strategy == named), None)
    if found is None:
        raise _unserved(f"Scales for each {str(named)[:50]!r} are not served.")
    return found


def _lengths(weights: Mapping[str, Any], strategy: Strategy) -> tuple[int, int] | None:
    if strategy not in ("group", "block"):
        return None
    lengths: Any = weights.get("block_structure") if strategy == "block" else [1, weights.get("group_size")]
    if not isinstance(lengths, list) or len(lengths) != 2 or not all(_is_number(n, 1, _MAX_LENGTH) for n in lengths):
        raise InvalidModel(f"The {strategy} size of the weights is no size.", reason=_REASON)
    return lengths[0], lengths[1]


def _targets(targets: Any) -> frozenset[str]:
    if not isinstance(targets, list) or len(targets) > _MAX_TARGETS or not all(isinstance(n, str) for n in targets):
        raise InvalidModel("The targets of a config group are no list of names.", reason=_REASON)
    return frozenset(targets)


def _is_number(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _unserved(message: str) -> UnsupportedFormat:
    return UnsupportedFormat(message, reason=_REASON, hint="Upload the model before it was quantized.")
