"""The README says what the code does: codes, keys, the query, the columns."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.config.explore import ExploreConfig
from pipeline.config.report import ReportConfig
from pipeline.config.train import TrainConfig
from pipeline.config.upscale import UpscaleConfig
from pipeline.data.catalog import COLUMNS
from pipeline.errors import ERROR_CODES

ROOT = Path(__file__).resolve().parent.parent
LOOKING = (ROOT / "docs" / "looking.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", ERROR_CODES)
def test_every_error_code_stands_with_its_class_and_mend(code: str) -> None:
    row = ERROR_CODES[code]
    assert f"| `{row.code}` | {row.error_class} | {row.meaning} | {row.mend} |" in README


def keys(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{above}{name}.")
        else:
            value = "null" if field.default is None else field.default
            yield f"{above}{name}", "required" if field.is_required() else f"`{value}`"


@pytest.mark.parametrize(("key", "default"), list(keys(UpscaleConfig)), ids=lambda value: value)
def test_every_key_stands_with_its_default(key: str, default: str) -> None:
    assert f"| `{key}` | {default} |" in README


SHARED = {"defaults", "model", "engine", "limits"}  # sections that are the main job's


@pytest.mark.parametrize(
    ("key", "default"),
    [
        (key, default)
        for model in (ExploreConfig, ReportConfig)
        for key, default in keys(model)
        if key.partition(".")[0] not in SHARED
    ],
    ids=lambda value: value,
)
def test_every_key_of_the_pages_stands_in_their_guide(key: str, default: str) -> None:
    assert f"| `{key}` | {default} |" in LOOKING


@pytest.mark.parametrize(("key", "default"), list(keys(TrainConfig)), ids=lambda value: value)
def test_every_key_of_training_stands_in_its_guide(key: str, default: str) -> None:
    assert f"| `{key}` | {default} |" in TRAINING


@pytest.mark.parametrize("column", COLUMNS)
def test_every_catalog_column_is_explained(column: str) -> None:
    assert f"`{column}`" in README


def test_nothing_is_left_to_fill_in() -> None:
    assert "@ERRORS@" not in README
    assert "@CONFIG@" not in README
