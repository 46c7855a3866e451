"""The page on compatibility says what is public: each of these names can be imported from where it says."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"


def promised() -> list[tuple[str, list[str]]]:
    """Each import path of the table, with the names that it promises."""
    _, _, rest = PAGE.read_text(encoding="utf-8").partition("\n## What is public\n")
    rows = [line.split("|")[1:3] for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    return [(path.strip(" `"), re.findall(r"`(\w+)`", names)) for path, names in rows]


@pytest.mark.parametrize(("path", "names"), [pytest.param(*each, id=each[0]) for each in promised()])
def test_what_is_public_can_be_imported(path: str, names: list[str]) -> None:
    module = import_module(path)
    assert names and [name for name in names if not hasattr(module, name)] == []


def test_all_that_authors_import_is_public() -> None:
    public = dict(promised())
    for path in ("projection_rebuild.authoring", "projection_rebuild_airflow"):
        assert sorted(public[path]) == sorted(import_module(path).__all__)
