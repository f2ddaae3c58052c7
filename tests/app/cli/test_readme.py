from pathlib import Path

from app.cli.settings import table
from app.config import Settings

README = Path(__file__).parents[3] / "README.md"


def test_the_configuration_table_is_the_one_the_settings_give() -> None:
    assert table() in README.read_text("utf-8"), "run `pressroom settings` and put its table into the README"


def test_every_setting_is_described_with_its_default() -> None:
    rows = table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert "| `PRESSROOM_PORT` | `8000` | Port the API binds to. |" in rows
    assert all(row.count("|") == 4 and not row.endswith("| |") for row in rows)
