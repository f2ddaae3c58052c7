"""The catalogue shows what there is evidence for, and says what applies to a model."""

import httpx
import pytest

from app.db import Database
from app.techniques import service
from tests import builders
from workers.compression.specs.evidence import EVIDENCE, Evidence
from workers.compression.specs.recipe import STEP_CLASSES

ROWS = tuple(
    Evidence.model_validate(
        {
            "technique": step.key(),
            "format": step.formats[0],
            "model": "digits",
            "data": "digits test split",
            "bytes_original": 100,
            "bytes_artifact": 30,
            "metric": "accuracy",
            "original": 0.94,
            "compressed": 0.93,
            "peer": "none",
            "command": "make evidence",
        }
    )
    for step in STEP_CLASSES
)


def test_every_step_with_evidence_is_listed_with_its_schema() -> None:
    entries = service.catalogue(ROWS)
    assert [f"{entry['technique']}.{entry['method']}" for entry in entries] == [step.key() for step in STEP_CLASSES]
    for entry, step in zip(entries, STEP_CLASSES, strict=True):
        assert entry["formats"] == list(step.formats)
        assert set(entry["schema"]["properties"]) == set(step.model_fields)
        assert len(entry["evidence"]) == 1


def test_without_evidence_nothing_is_listed() -> None:
    assert service.catalogue(()) == []


def test_each_technique_has_one_default_method() -> None:
    entries = service.catalogue(ROWS)
    for technique in {entry["technique"] for entry in entries}:
        assert sum(entry["default"] for entry in entries if entry["technique"] == technique) == 1


async def test_the_list_holds_what_this_version_has_evidence_for(client: httpx.AsyncClient) -> None:
    page = (await client.get("/v1/techniques")).json()
    assert {f"{entry['technique']}.{entry['method']}" for entry in page["data"]} == {row.technique for row in EVIDENCE}
    assert not page["has_more"]
    assert all("applies" not in entry for entry in page["data"])


@pytest.mark.parametrize("model_format", ["onnx", "skops"])
def test_what_applies_to_a_model_and_why_not(database: Database, model_format: str) -> None:
    with database.transaction() as session:
        project = builders.add_project(session)
        model = builders.add_model(session, project.id)
        model.format = model_format
        model.family = "tree_ensemble" if model_format == "skops" else "neural_network"
        session.flush()
        entries = service.catalogue_for(session, project.id, model.id, ROWS)
    for entry in entries:
        assert entry["applies"] == (model_format in entry["formats"])
        assert (entry["why_not"] is None) == entry["applies"]


async def test_a_model_that_is_not_there_has_no_catalogue(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/techniques", params={"model": "mdl_x"})).status_code == 404
