"""The table of states, over the whole product of states."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.states import ACTIVE, TERMINAL, TRANSITIONS, JobState, can_move, sources_of

STATES = st.sampled_from(JobState)


def test_every_state_has_a_row() -> None:
    assert set(TRANSITIONS) == set(JobState)


@pytest.mark.parametrize(("current", "wanted"), list(product(JobState, JobState)))
def test_moving_and_sources_say_the_same(current: JobState, wanted: JobState) -> None:
    assert can_move(current, wanted) == (current in sources_of(wanted))


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_nothing_leaves_a_terminal_state(state: JobState) -> None:
    assert not any(can_move(state, wanted) for wanted in JobState)


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_every_active_state_can_end_by_failure_and_by_cancel(state: JobState) -> None:
    reachable: set[JobState] = set()
    waiting = [state]
    while waiting:
        following = TRANSITIONS[waiting.pop()] - reachable
        reachable |= following
        waiting.extend(following)
    assert {JobState.FAILED, JobState.CANCELLED} <= reachable


def test_no_state_moves_to_itself() -> None:
    assert not any(can_move(state, state) for state in JobState)


def test_only_a_running_job_is_put_back_or_asked_to_stop() -> None:
    assert sources_of(JobState.QUEUED) == {JobState.RUNNING}
    assert sources_of(JobState.CANCELLING) == {JobState.RUNNING}


def test_success_needs_a_worker() -> None:
    assert sources_of(JobState.SUCCEEDED) == {JobState.RUNNING, JobState.CANCELLING}


@given(st.lists(STATES, max_size=12))
def test_a_job_ends_at_most_once_whatever_is_tried(wishes: list[JobState]) -> None:
    state, ends = JobState.QUEUED, 0
    for wanted in wishes:
        if can_move(state, wanted):
            state = wanted
            ends += state in TERMINAL
    assert ends <= 1
