"""What a job works on, as files that the store lends out for as long as its children need them."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from app.jobs.schemas import Role
from app.jobs.service import DatasetUse
from app.models.records import ModelRecord
from app.storage import Storage
from workers.compression.specs.formats import ModelFormat
from workers.compression.specs.messages import Data, DatasetFile, ModelFile


class Lent:
    """Models and datasets by the hashes of their content.

    Args:
        lent: Gives the files back when it is closed.
    """

    def __init__(
        self, storage: Storage, models: Iterable[ModelRecord], uses: Mapping[Role, DatasetUse], lent: ExitStack
    ) -> None:
        wanted = {*map(clean_sha256, models), *(use.sha256 for use in uses.values())}
        self._paths = {sha256: lent.enter_context(storage.local(sha256)) for sha256 in sorted(wanted)}
        self._uses = uses

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, for a child that may read them."""
        return tuple(self._paths.values())

    @property
    def data(self) -> Data:
        """The datasets by role."""
        files = {
            role: DatasetFile(
                path=str(self._paths[use.sha256]),
                format=use.format,
                fields=use.fields,
                part=use.part,
                split_seed=use.split_seed,
                sha256=use.sha256,
            )
            for role, use in self._uses.items()
        }
        return Data(**files)

    def model(self, record: ModelRecord) -> ModelFile:
        """A model in its clean form."""
        sha256 = clean_sha256(record)
        return ModelFile(path=str(self._paths[sha256]), format=ModelFormat(str(record.format)), sha256=sha256)


def clean_sha256(model: ModelRecord) -> str:
    """The hash of what is loaded of a model."""
    return model.clean_sha256 or model.sha256
