"""A quantization whose process is killed goes on at the weight it had reached, to the very bytes of one left alone."""

import re
from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster, eventually
from tests.chaos.digits import submit_quantization

pytestmark = pytest.mark.chaos

TENSORS = 8
SECONDS = 300.0


@pytest.mark.timeout(900)
def test_a_killed_quantization_goes_on_at_the_weight_it_had_reached(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_sweeper()
    worker = cluster.start_real_worker()
    undisturbed = submit_quantization(cluster, tmp_path, TENSORS)
    cluster.assert_succeeded_once(undisturbed, SECONDS)

    job = submit_quantization(cluster, tmp_path, TENSORS)
    eventually(lambda: [kept for kept in cluster.checkpoints(job) if kept.update >= 3], "three weights are kept")
    cluster.child(worker, job).kill()
    cluster.assert_succeeded_once(job, SECONDS)

    assert cluster.told(job) == ["created", "queued", "started", "requeued", "started", "succeeded"]
    resumed = re.search(rf"resumed at layers\.(\d+)\.weight: (\d+) of {TENSORS} were done", cluster.find(job).log)
    assert resumed is not None
    assert int(resumed[2]) >= 3
    assert "resumed" not in cluster.find(undisturbed).log
    assert cluster.model_hash(job) == cluster.model_hash(undisturbed)
