"""What every step of a recipe has in common."""

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from workers.compression.specs.formats import Family, ModelFormat

Need = Literal["calibration", "selection", "train", "labels"]
Glob = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Contract(BaseModel):
    """A frozen part of the public contract: unknown fields are refused, NaN and infinity too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class Step(Contract):
    """One step of a recipe: a technique, its method and their parameters.

    A subclass per technique and method gives the two as ``Literal`` fields with defaults and fills the class
    attributes below; the registry, OpenAPI, ``GET /v1/techniques`` and the submit-time checks all read them.
    """

    summary: ClassVar[str]
    """One sentence for the catalogue."""
    formats: ClassVar[tuple[ModelFormat, ...]]
    """Formats a handler exists for."""
    families: ClassVar[tuple[Family, ...]]
    needs: ClassVar[tuple[Need, ...]] = ()
    """Data that has to be there: rows to look at (``calibration``), choose by (``selection``), learn from (``train``);
    a target (``labels``)."""
    conflicts: ClassVar[tuple[str, ...]] = ()
    """``technique`` or ``technique.method`` names that may not stand *before* this one in a recipe."""
    default: ClassVar[bool] = False
    """Whether a missing ``method`` means this one."""
    compresses: ClassVar[bool] = True
    """Whether a recipe with this step must end with something smaller (``nothing_compressed``)."""
    size_factors: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)
    """Bytes of the artifact over those of the model at best, typically and at worst; estimates start from them."""

    technique: str
    method: str

    def required(self) -> tuple[Need, ...]:
        """What this very step needs; some parameters ask for less or more than ``needs`` says of the defaults."""
        return self.needs

    def refusal(self, model_format: ModelFormat) -> str | None:
        """Why a format that the technique serves cannot be served with these parameters; None if it can."""
        return None

    @classmethod
    def key(cls) -> str:
        """``technique.method``, the tag of the discriminated union."""
        return f"{cls.model_fields['technique'].default}.{cls.model_fields['method'].default}"


def selects(name: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """Whether ``include`` and ``exclude`` globs leave the layer or tensor ``name`` in (never regular expressions)."""
    if include and not any(fnmatchcase(name, glob) for glob in include):
        return False
    return not any(fnmatchcase(name, glob) for glob in exclude)
