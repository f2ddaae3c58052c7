"""Runtimes that tests of ONNX files share."""

from pathlib import Path

import pytest

from tests.benchmarks.peer_environments import PeerUnavailable, prepared


@pytest.fixture(scope="session")
def oldest_runtime() -> Path:
    """A Python with the oldest onnxruntime that installs here, kept between runs."""
    try:
        return prepared("oldest-onnxruntime").python
    except PeerUnavailable as missing:
        pytest.skip(f"the oldest onnxruntime cannot be installed here: {missing}")
