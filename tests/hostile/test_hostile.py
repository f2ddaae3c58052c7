"""Every hostile file against the live service: refused with the right words, nothing run, nothing left."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from tests.hostile.cases import READY, Case
from tests.hostile.catalogue import DATASETS, MODELS, all_cases
from tests.live import LiveService

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

UPLOADS_AT_A_TIME = 2
"""As many as the inspecting worker takes at once: a case is timed by itself, not by the queue."""
SAMPLE_EVERY = 8
SECONDS_PER_CASE = 30
API_GROWTH_BYTES = 100 << 20
COLLECTION_SECONDS = 180
LEAST_CASES = {
    "onnx": 24,
    "archive": 21,
    "safetensors": 16,
    "torch": 14,
    "huggingface": 10,
    "pt2": 8,
    "torchscript": 4,
    "skops": 6,
    "pickle": 2,
    "xgboost": 2,
    "lightgbm": 2,
    "npz": 6,
    "csv": 3,
    "jsonl": 5,
    "parquet": 3,
    "images": 5,
}


@dataclass(frozen=True)
class Verdict:
    """What the service said about one case."""

    status: int
    code: str
    reason: str | None
    detail: str
    seconds: float
    payload_ran: bool
    sha256: str
    kept: str | None = None
    """Id of the object where one was made: the file was taken, or its inspection took too long to wait for."""


def judge(service: LiveService, case: Case, path: Path) -> Verdict:
    """Uploads a case and waits until the service has made up its mind."""
    started = monotonic()
    with path.open("rb") as content:
        files = {"file": (case.filename, content, "application/octet-stream")}
        response = service.client.post(f"/v1/{case.kind}s", data={"name": case.name}, files=files)
    body = response.json()
    if response.is_success:
        body = service.inspected(case.kind, body, SECONDS_PER_CASE * 4)
    seconds = monotonic() - started
    ran = (path.parent / "markers" / case.name).exists()
    error = body if response.is_error else body["error"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if error is None:
        return Verdict(response.status_code, READY, None, "", seconds, ran, sha256, body["id"])
    status = response.status_code if response.is_error else error["status"]
    return Verdict(status, error["code"], error.get("reason"), error["detail"], seconds, ran, sha256, body.get("id"))


@dataclass(frozen=True)
class Trial:
    """All verdicts, and what the service looked like before and after."""

    verdicts: dict[str, Verdict]
    api_growth: int
    workers_before: set[int]
    workers_after: set[int]


def parameters() -> list[Any]:
    """All cases; of those that need a child of their own, only a sample runs in the quick suite.

    ``test_gates.py`` shows all of them to the checks in one process per format.
    """
    found = []
    for catalogue in (*MODELS, *DATASETS):
        for index, case in enumerate(catalogue.cases):
            marks = () if case.control or index % SAMPLE_EVERY == 0 else (pytest.mark.long,)
            found.append(pytest.param(case, id=case.name, marks=marks))
    return found


@pytest.fixture(scope="module")
def trial(request: pytest.FixtureRequest, service: LiveService, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Uploads every case that was selected, a few at a time; the tests look at the outcome."""
    api = service.process_of("uvicorn")
    before, workers = api.memory_info().rss, worker_processes(service)
    selected = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    cases = [case for case in selected if isinstance(case, Case)]
    # Made before the threads start: torch.export, which some of them need, is not safe in several.
    paths = [case.build(tmp_path_factory.mktemp("case")) for case in cases]
    with ThreadPoolExecutor(UPLOADS_AT_A_TIME) as pool:
        verdicts = list(pool.map(lambda case, path: judge(service, case, path), cases, paths))
    found = {case.name: verdict for case, verdict in zip(cases, verdicts, strict=True)}
    return Trial(found, api.memory_info().rss - before, workers, worker_processes(service))


def worker_processes(service: LiveService) -> set[int]:
    """The workers' own processes, which no file may bring down."""
    return {service.process_of(f"workers.tasks {capability}").pid for capability in ("cpu", "inspect")}


@pytest.mark.parametrize("case", parameters())
def test_file_is_answered_truthfully(case: Case, trial: Trial) -> None:
    verdict = trial.verdicts[case.name]

    assert not verdict.payload_ran
    if verdict.code == READY:
        assert READY in case.codes, "taken"
    else:
        assert case.allows(verdict.status, verdict.code, verdict.reason), verdict
    assert verdict.seconds < SECONDS_PER_CASE


def test_no_answer_names_a_path_or_a_traceback(trial: Trial) -> None:
    leaks = ("Traceback", "/scratch/", "site-packages", 'File "', "/blobs/")
    for name, verdict in trial.verdicts.items():
        assert not any(leak in verdict.detail for leak in leaks), (name, verdict.detail)


def test_the_service_outlives_every_file(trial: Trial, service: LiveService) -> None:
    assert trial.workers_after == trial.workers_before
    assert service.client.get("/readyz").status_code == httpx.codes.OK
    assert trial.api_growth < API_GROWTH_BYTES


def test_refused_files_leave_nothing_behind(trial: Trial, service: LiveService) -> None:
    kept = {verdict.kept for verdict in trial.verdicts.values() if verdict.code == READY}
    for kind in ("models", "datasets"):
        for found in every(service, f"/v1/{kind}"):
            assert found["status"] != "ready" or found["id"] in kept or not found["name"].startswith(names()), found

    assert [path for path in (service.folder / "scratch").rglob("*") if path.is_file()] == []


@pytest.mark.long
def test_bytes_of_refused_files_are_collected(trial: Trial, service: LiveService) -> None:
    refused = {verdict.sha256 for verdict in trial.verdicts.values() if verdict.code != READY}
    refused -= {verdict.sha256 for verdict in trial.verdicts.values() if verdict.code == READY}
    for verdict in trial.verdicts.values():
        if verdict.code != READY and verdict.kept:
            kind = "models" if verdict.kept.startswith("mdl_") else "datasets"
            service.client.delete(f"/v1/{kind}/{verdict.kept}").raise_for_status()
    deadline = monotonic() + COLLECTION_SECONDS
    while left := refused & {path.name for path in (service.folder / "blobs").rglob("*")}:
        assert monotonic() < deadline, f"{len(left)} blobs are left"
        sleep(1.0)


def names() -> tuple[str, ...]:
    return tuple(f"{catalogue.format}-" for catalogue in (*MODELS, *DATASETS))


def every(service: LiveService, path: str) -> Iterator[dict[str, Any]]:
    """All objects of a list."""
    after: str | None = None
    while True:
        query = {"limit": 100} | ({"after": after} if after else {})
        page = service.client.get(path, params=query).raise_for_status().json()
        yield from page["data"]
        after = page["next"]
        if not page["has_more"]:
            return


def test_what_was_taken_runs_or_fails_truthfully(trial: Trial, service: LiveService) -> None:
    cases = [case for case in all_cases() if case.name in trial.verdicts]
    doubtful = [case for case in cases if READY in case.codes and not case.control and case.kind == "model"]
    recipe = [{"technique": "quantize", "method": "float16"}]
    for case in doubtful:
        verdict = trial.verdicts[case.name]
        if verdict.code != READY:
            continue
        request = {"model": verdict.kept, "recipe": recipe, "execution": {"timeout_seconds": 60, "max_attempts": 1}}
        response = service.client.post("/v1/jobs", json=request)
        assert response.status_code in {202, 422}, response.text
        if response.status_code == httpx.codes.ACCEPTED:
            job = service.finished(response.json()["id"])
            assert job["status"] == "succeeded" or job["error"]["code"] != "internal", (case.name, job["error"])
    assert worker_processes(service) == trial.workers_before


def test_each_format_has_its_share_of_cases() -> None:
    for name, least in LEAST_CASES.items():
        cases = [case for catalogue in (*MODELS, *DATASETS) if catalogue.format == name for case in catalogue.cases]
        assert sum(not case.control for case in cases) >= least, name
        if name not in {"pickle", "torchscript", "xgboost", "lightgbm"}:
            assert any(case.control for case in cases), name


def test_case_names_are_unique() -> None:
    names = [case.name for case in all_cases()]
    assert len(names) == len(set(names))
