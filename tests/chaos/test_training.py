"""A training that is cut off again and again ends with the very bytes of one that was left alone."""

import random
import time
from pathlib import Path

import pytest

from app.jobs.records import JobRecord
from tests.chaos.cluster import Cluster, eventually
from tests.chaos.digits import submit_training

pytestmark = pytest.mark.chaos

TRAINING_SECONDS = 300.0
SLACK_SECONDS = 1.0
ATTEMPT_SECONDS = 6.0


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kills", "epochs", "seed"), [(2, 12.0, 0), pytest.param(10, 60.0, 1, marks=pytest.mark.long)])
def test_a_training_under_fire_makes_the_same_model(
    cluster: Cluster, tmp_path: Path, kills: int, epochs: float, seed: int
) -> None:
    cluster.start_sweeper()
    worker = cluster.start_real_worker()
    undisturbed = submit_training(cluster, tmp_path, epochs)
    cluster.assert_succeeded_once(undisturbed, TRAINING_SECONDS)
    dice = random.Random(seed)
    job = submit_training(cluster, tmp_path, epochs, max_attempts=kills + 1)
    for number in range(kills):
        _await_a_moment(cluster, job, number, dice)
        if number % 2 == 0:
            cluster.child(worker, job).kill()
        else:
            worker.kill()
            worker.wait()
            worker = cluster.start_real_worker()
    cluster.assert_succeeded_once(job, TRAINING_SECONDS)
    assert cluster.told(job) == ["created", "queued", *["started", "requeued"] * kills, "started", "succeeded"]
    assert "recipe/0 goes on from its checkpoint" in cluster.find(job).log
    assert cluster.model_hash(job) == cluster.model_hash(undisturbed)


def _await_a_moment(cluster: Cluster, job: JobRecord, number: int, dice: random.Random) -> None:
    """Some time into the training of the attempt; every third time anywhere in the attempt, also when it measures."""

    def is_started() -> bool:
        return cluster.find(job).attempt == number + 1

    def is_training() -> bool:
        return is_started() and "step" in cluster.find(job).progress and bool(number or cluster.checkpoints(job))

    anywhere = number % 3 == 2
    eventually(is_started if anywhere else is_training, f"attempt {number + 1} is under way")
    # Nothing tells when to strike: that it may be at any moment is what is tested.
    time.sleep(dice.uniform(0.0, ATTEMPT_SECONDS if anywhere else SLACK_SECONDS))
