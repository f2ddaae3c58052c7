"""Every hostile file against the checks alone, outside the sandbox, where a payload that ran would leave its mark."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.catalogue import DATASETS, MODELS

GROUPS = {
    "files": ("onnx", "archive", "safetensors", "torch", "torchscript", "pickle", "xgboost", "lightgbm"),
    "folders": ("huggingface", "pt2", "skops"),
    "datasets": ("npz", "csv", "jsonl", "parquet", "images"),
}
"""Formats that share a process, for most of its time goes into imports."""
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("group", GROUPS)
def test_checks_answer_truthfully_without_running_anything(group: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.hostile.gates", *(f"{name}-" for name in GROUPS[group])],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
    )

    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    started = [line["start"] for line in lines if "start" in line]
    verdicts = {line["name"]: line for line in lines if "name" in line}
    assert run.returncode == 0, f"the process died at {started[-1:]}: {run.stderr[-2000:]}"
    assert list(verdicts) == started
    assert [line for line in verdicts.values() if line["payload_ran"]] == []
    assert [line for line in verdicts.values() if not line["right"]] == []


def test_every_format_is_in_a_group() -> None:
    assert {name for group in GROUPS.values() for name in group} == {found.format for found in (*MODELS, *DATASETS)}
