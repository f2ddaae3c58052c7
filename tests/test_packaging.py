import re
import shutil
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len(found) == len({pin.name for pin in found})
    return {canonical(pin.name): next(iter(pin.specifier)).version for pin in found}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    return [found for line in lines if canonical((found := Requirement(line)).name) != "pressroom"]


def test_every_requirement_is_pinned_within_its_bounds() -> None:
    pinned = pins()
    for requirement in requirements():
        version = pinned[canonical(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_what_the_tests_run_with_is_what_is_pinned() -> None:
    pinned = pins()
    for requirement in requirements():
        installed = metadata.version(requirement.name).partition("+")[0]
        assert installed == pinned[canonical(requirement.name)], requirement.name


def test_no_torch_without_the_worker_extra() -> None:
    heavy = {"torch", "torchao", "transformers", "onnx", "onnxruntime", "numpy", "scikit-learn", "pyarrow"}
    assert heavy.isdisjoint(canonical(Requirement(line).name) for line in PROJECT["dependencies"])


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_torch_has_one_version_everywhere(file: str) -> None:
    assert re.findall(r"torch==([\d.]+)", (ROOT / file).read_text("utf-8")) == [pins()["torch"]]


def test_images_run_as_nobody_special_and_say_how_they_are() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    final = {stage.split()[2]: stage for stage in stages[1:] if stage.split()[2] in {"api", "worker"}}
    assert set(final) == {"api", "worker"}
    for stage in final.values():
        assert "USER pressroom" in stage
        assert "HEALTHCHECK" in stage
    assert "torch" not in final["api"]


def test_the_compose_file_is_valid() -> None:
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        command = [docker, "compose"]
    elif shutil.which("docker-compose"):
        command = ["docker-compose"]
    else:
        pytest.skip("neither docker compose nor docker-compose is installed")
    listed = subprocess.run(
        [*command, "--profile", "gpu", "config", "--services"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert listed.returncode == 0, listed.stderr
    expected = {"api", "migrations", "postgres", "redis", "sweeper", "worker", "worker-gpu", "worker-inspect"}
    assert set(listed.stdout.split()) == expected
