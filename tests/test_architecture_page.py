"""The page on the architecture speaks of the packages that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.structure import structure_of

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "include" / "projection_rebuild"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def packages_in(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/__init__.py")}


def section(heading: str) -> str:
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found, f"docs/architecture.md has no section {heading!r}"
    return rest.partition("\n## ")[0]


def first_names(heading: str, column: int) -> list[str]:
    """The names in a column of the table below a heading."""
    rows = [line.split("|")[1:-1] for line in section(heading).splitlines() if line.startswith("|")]
    return [name for row in rows for name in re.findall(r"^\s*`(\w+)`\s*$", row[column])]


def test_each_package_of_the_engine_is_on_the_page_once() -> None:
    named = first_names("The engine's packages", 1)
    assert sorted(named) == sorted(packages_in(ENGINE))


def test_each_database_is_on_the_page_once() -> None:
    named = first_names("Databases", 0)
    assert sorted(named) == sorted(packages_in(ENGINE / "dialects") - {"base"})


def rows_of_packages() -> list[list[str]]:
    """The cells of the table of packages: layer, package, purpose, what it may import."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section("The engine's packages").splitlines()]
    return [row for row in rows if len(row) == 4 and row[0].isdigit()]


LAYERS = {row[1].strip("`"): int(row[0]) for row in rows_of_packages()} | {"rebuild": 13}


def test_what_a_package_may_import_lies_below_it() -> None:
    for layer, package, _, imported in rows_of_packages():
        names = re.findall(r"`(\w+)`", imported)
        assert all(LAYERS[name] < int(layer) for name in names), f"{package} may not import {names}"


def test_what_a_package_imports_is_what_it_may_import() -> None:
    """No more than the table allows, and all that it names."""
    arrows = structure_of(ENGINE).packages
    for _, cell, _, allowed in rows_of_packages():
        package, named = cell.strip("`"), set(re.findall(r"`(\w+)`", allowed))
        below = {
            name
            for name, layer in LAYERS.items()
            if allowed.endswith("and below") and layer < min(LAYERS[each] for each in named)
        }
        imported = set(arrows[package]) - {"errors", "moved"}
        assert imported <= named | below, f"{package} imports {imported - named - below}, which the page does not allow"
        assert named <= imported, f"{package} imports no {named - imported}: name less"


def test_the_modules_beside_the_packages_are_all_named() -> None:
    _, _, text = section("The engine's packages").partition("\n\n")
    (said,) = re.findall(r"^(\w+) modules stand beside the packages\.(.*?)\n\n", f"{text}\n\n", re.MULTILINE | re.DOTALL)
    modules = {path.stem for path in ENGINE.glob("*.py")} - {"__init__"}
    assert set(re.findall(r"`(\w+)`", said[1])) == modules
    assert said[0] == ["Four", "Five", "Six", "Seven"][len(modules) - 4]


@pytest.mark.parametrize("package", sorted(str(path.parent.relative_to(ENGINE)) for path in ENGINE.glob("*/**/__init__.py")))
def test_each_package_has_a_readme(package: str) -> None:
    text = (ENGINE / package / "README.md").read_text(encoding="utf-8")
    assert 20 <= len(text.splitlines()) <= 60, "20 to 60 lines: purpose, algorithm, limits"
    assert text.startswith(f"# {package.replace('/', '.')}\n")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Purpose", "Algorithm", "Limits", "Where to look"], headings


def test_what_a_readme_names_is_there() -> None:
    """A module that has moved sends the reader of "Where to look" nowhere."""
    known = {path.stem for path in ENGINE.rglob("*.py")} | {path.parent.name for path in ENGINE.rglob("__init__.py")}
    for path in ENGINE.rglob("README.md"):
        places = path.read_text(encoding="utf-8").partition("\n## Where to look\n")[2]
        missing = {name for name in re.findall(r"`([a-z_.]+)`", places) if not known.issuperset(name.split("."))}
        assert not missing, f"{path.relative_to(ENGINE)}: {sorted(missing)}"
