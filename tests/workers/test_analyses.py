"""Analyses in the runner: what is measured is kept for the next job, and only of what was given to the child."""

import pytest
from sqlalchemy import select

from app.artifacts.records import ArtifactRecord
from app.jobs.states import JobState
from app.sensitivities import repository
from app.sensitivities.records import SensitivityRecord
from tests.workers.submitter import Submitter
from tests.workers.test_runner import run, told
from workers.workplace import Workplace


def test_what_was_measured_is_reported_and_told_to_the_next_job(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.analysis({"analyze": "analyze"}))
    assert (job.status, job.outcome, job.metrics) == (JobState.SUCCEEDED, "unconstrained", None)
    assert told(workplace.database, job) == ["created", "queued", "started", "succeeded"]
    assert "told of 0 maps" in job.log
    assert job.layers is not None
    assert job.layers[0]["sensitivity"] == 0.25
    assert job.report is not None
    assert (job.report["object"], job.report["job"]) == ("analysis_report", job.id)
    with workplace.database.reading() as session:
        files = list(session.scalars(select(ArtifactRecord).order_by(ArtifactRecord.id)))
        sha256 = job.report["model"]["sha256"]
        (known,) = repository.known(session, job.project_id, sha256)
    assert [(file.kind, file.name) for file in files] == [
        ("report", "report.json"),
        ("report", "report.md"),
        ("report", "report.html"),
    ]
    assert b"0.25" in workplace.storage.read(files[0].sha256)
    assert [option.bits for option in known.weights[0].options] == [4]
    again = run(workplace, submit.analysis({"analyze": "analyze"}))
    assert "told of 1 maps" in again.log


def test_a_child_cannot_leave_maps_of_other_rows(workplace: Workplace, submit: Submitter) -> None:
    job = run(workplace, submit.analysis({"analyze": "analyze_others"}))
    assert job.error is not None
    assert (job.status, job.error["code"]) == (JobState.FAILED, "invalid_result")
    with workplace.database.reading() as session:
        assert session.query(SensitivityRecord).count() == 0


@pytest.mark.parametrize(("behaviour", "code"), [("refuse", "invalid_model"), ("segfault", "crashed")])
def test_an_analysis_that_fails_says_why(workplace: Workplace, submit: Submitter, behaviour: str, code: str) -> None:
    job = run(workplace, submit.analysis({"analyze": behaviour}))
    assert job.error is not None
    assert (job.status, job.error["code"], job.error["step"]) == (JobState.FAILED, code, "analyze")
