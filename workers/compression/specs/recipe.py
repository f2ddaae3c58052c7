"""The discriminated union of every step there is, found by looking into ``specs.steps``."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import Discriminator, Field, Tag

from workers.compression.specs import steps
from workers.compression.specs.step import Step


def _load_step_classes() -> tuple[type[Step], ...]:
    for module in sorted(pkgutil.iter_modules(steps.__path__), key=lambda found: found.name):
        importlib.import_module(f"{steps.__name__}.{module.name}")
    found: set[type[Step]] = set()  # a step that trains and quantizes is a subclass of both
    waiting = list(Step.__subclasses__())
    while waiting:
        step = waiting.pop(0)
        waiting.extend(step.__subclasses__())
        if isinstance(step.model_fields["method"].default, str):
            found.add(step)
    return tuple(sorted(found, key=lambda step: step.key()))


STEP_CLASSES = _load_step_classes()
STEPS_BY_KEY = {step.key(): step for step in STEP_CLASSES}
DEFAULT_METHODS = {
    str(step.model_fields["technique"].default): str(step.model_fields["method"].default)
    for step in STEP_CLASSES
    if step.default
}


def step_tag(value: Any) -> str | None:
    """``technique.method`` of a raw or parsed step, with the technique's default method filled in."""
    if isinstance(value, Step):
        return type(value).key()
    if not isinstance(value, dict):
        return None
    technique = value.get("technique")
    method = value.get("method") or DEFAULT_METHODS.get(str(technique))
    return f"{technique}.{method}"


if TYPE_CHECKING:
    AnyStep = Step
else:
    AnyStep = Annotated[
        Union[tuple(Annotated[step, Tag(step.key())] for step in STEP_CLASSES)],  # noqa: UP007 - built at run time
        Discriminator(
            step_tag,
            custom_error_type="unknown_technique",
            custom_error_message=f"no such technique and method; there are: {', '.join(sorted(STEPS_BY_KEY))}",
        ),
    ]

Recipe = Annotated[tuple[AnyStep, ...], Field(min_length=1, max_length=20)]
