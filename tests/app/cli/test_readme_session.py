import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.cli.running import running

README = Path(__file__).parents[3] / "README.md"


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("curl") is None, reason="the session is about curl")
def test_the_curl_session_of_the_readme_works_as_it_stands(tmp_path: Path) -> None:
    session = re.search(r"^```bash\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert session is not None
    with running(tmp_path / "service") as service:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", session[1]],
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "PRESSROOM_URL": service.url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + service.log.read_text("utf-8")
        assert service.stop() < 15.0
    assert "event: job.succeeded" in done.stdout
    assert re.search(r"^succeeded$", done.stdout, re.MULTILINE)
    original, artifact = tmp_path / "digits.onnx", tmp_path / "digits.int8.onnx"
    assert artifact.stat().st_size < 0.3 * original.stat().st_size
    assert re.search(r'"accuracy": 0\.9', done.stdout)
