"""A project with a model and a dataset, both inspected."""

import pytest

from app.db import Database
from tests import builders


@pytest.fixture
def project_id(database: Database) -> str:
    with database.transaction() as session:
        return builders.add_project(session).id


@pytest.fixture
def model_id(database: Database, project_id: str) -> str:
    with database.transaction() as session:
        return builders.add_model(session, project_id).id


@pytest.fixture
def dataset_id(database: Database, project_id: str) -> str:
    with database.transaction() as session:
        return builders.add_dataset(session, project_id).id
