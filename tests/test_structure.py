"""tools/structure.py counts a small package as a person would."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.structure import ENGINE, longest_chain, structure_of

FILES = {
    "__init__.py": "",
    "face.py": "from engine.steps import plan\nfrom engine.steps.plan import Plan\nimport engine.rows\n",
    "rows.py": "import json\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from engine.face import Face\n",
    "steps/__init__.py": '"""Steps."""\n',
    "steps/plan.py": "from engine.rows import Row\n\ndef late():\n    from engine.steps import swap\n",
    "steps/swap.py": "from engine.rows import Row\n",
}

CLASSES = """
class Small:
    def one(self): ...

class Contract(Protocol[T]):
    @property
    @abstractmethod
    def one(self): ...
    def two(self): ...

class Large:
""" + "\n".join(f"    def method_{each}(self): ..." for each in range(20))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "engine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "engine"


def test_files_and_packages_are_counted(engine: Path) -> None:
    found = structure_of(engine)
    assert found.files["face"] == {"steps.plan", "rows"}
    # What only a type checker looks at is no arrow; what a function imports is one.
    assert found.files["rows"] == set() and found.files["steps.plan"] == {"rows", "steps.swap"}
    assert longest_chain(found.files) == ["face", "steps.plan", "steps.swap", "rows"]
    assert found.packages["face"] == {"steps", "rows"} and found.packages["steps"] == {"rows"}
    assert "longest chain at the top: face -> steps -> rows" in found.table()


def test_imports_through_the_folder_include_are_counted(engine: Path) -> None:
    """As in a tree of version 0.1."""
    (engine / "face.py").write_text("from include.engine.steps import plan\nimport include.engine.rows\n")
    assert structure_of(engine).files["face"] == {"steps.plan", "rows"}


def test_a_circle_is_named(engine: Path) -> None:
    (engine / "rows.py").write_text("from engine import face")
    with pytest.raises(ValueError, match=r"face -> rows -> face|face -> steps\.plan -> rows -> face"):
        structure_of(engine).table()


def test_contracts_and_large_classes_are_shown(engine: Path) -> None:
    (engine / "rows.py").write_text(CLASSES)
    found = [(each.name, each.module, each.methods, each.abstract) for each in structure_of(engine).classes]
    assert found == [("Large", "rows", 20, 0), ("Contract", "rows", 2, 1)]


def test_the_engine_has_no_circle() -> None:
    found = structure_of(ENGINE)
    assert len(longest_chain(found.files)) >= len(longest_chain(found.packages)) > 1
