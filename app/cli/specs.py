"""Turns command line arguments into the parts of a job's spec."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

ROLES = ("train", "calibration", "evaluation")
ALL_ROLES = ("calibration", "evaluation")


def parse_recipe(file: Path | None, techniques: Sequence[str], settings: Sequence[str]) -> list[dict[str, Any]]:
    """The recipe from a JSON file, or from ``--technique quantize.static --set samples=128`` shorthands.

    Args:
        file: JSON: a list of steps, one step, or an object with a ``recipe``.
        techniques: ``technique`` or ``technique.method``, in order.
        settings: ``name=value`` for the only step, ``INDEX.name=value`` where there are several.
    """
    if (file is None) == (not techniques):
        raise typer.BadParameter("give either --recipe FILE or at least one --technique")
    if file is not None:
        if settings:
            raise typer.BadParameter("--set goes with --technique; in a recipe file the values stand in the file")
        return _read_recipe(file)
    steps = [_step(technique) for technique in techniques]
    for setting in settings:
        _apply(steps, setting)
    return steps


def _read_recipe(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as failure:
        raise typer.BadParameter(f"{file}: {failure}") from failure
    if isinstance(content, dict):
        content = content.get("recipe", [content])
    if not isinstance(content, list) or not all(isinstance(step, dict) for step in content):
        raise typer.BadParameter(f"{file}: a recipe is a list of steps")
    return content


def _step(technique: str) -> dict[str, Any]:
    name, _, method = technique.partition(".")
    return {"technique": name, "method": method} if method else {"technique": name}


def _apply(steps: list[dict[str, Any]], setting: str) -> None:
    path, equals, value = setting.partition("=")
    index, dot, name = path.partition(".")
    if not dot:
        index, name = "0", path
        if len(steps) > 1:
            raise typer.BadParameter(f"--set {setting}: with several techniques write INDEX.name=value")
    if not equals or not name or not index.isdigit() or int(index) >= len(steps):
        raise typer.BadParameter(f"--set {setting}: expected name=value or INDEX.name=value")
    steps[int(index)][name] = parse_value(value)


def parse_value(text: str) -> Any:
    """``0.5`` is a number, ``true`` a truth value, ``["a"]`` a list, anything that is no JSON a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_data(arguments: Sequence[str]) -> dict[str, str]:
    """``--data evaluation=PATH`` by role; a bare PATH serves calibration and evaluation, split by the service.

    A value is a path or a dataset id; turning paths into ids is the caller's.
    """
    by_role: dict[str, str] = {}
    for argument in arguments:
        role, equals, value = argument.partition("=")
        named = bool(equals) and role in ROLES
        for target in (role,) if named else ALL_ROLES:
            if target in by_role:
                raise typer.BadParameter(f"--data: the role {target} is given twice")
            by_role[target] = value if named else argument
    return by_role


def parse_target(arguments: Sequence[str]) -> dict[str, Any]:
    """``--target cpu-avx2`` or ``--target runtime=onnxruntime``, repeatable."""
    target: dict[str, Any] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        target.update({name: parse_value(value)} if equals else {"hardware": argument})
    return target
