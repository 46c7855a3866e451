"""The registry of the plan's checks: each subject is in it, each check is on the page, and scopes say when one is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning import checks, preflight
from projection_rebuild.planning.checks import CHECKS, SUBJECTS
from projection_rebuild.planning.checks.registry import Check, Scope, registered

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "preflight.md"

NO_SUBJECTS = {"__init__", "input", "registry"}
"""Modules of the package that hold no checks."""


def test_each_module_of_checks_is_a_subject_with_checks() -> None:
    (folder,) = checks.__path__
    modules = {path.stem for path in Path(folder).glob("*.py")} - NO_SUBJECTS
    assert modules == {subject.__name__.rpartition(".")[2] for subject in SUBJECTS}
    assert [subject.__name__ for subject in SUBJECTS if not registered(subject.__name__)] == []


def test_each_check_has_its_line_on_the_page() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("\n## Every check\n")[2]
    lines = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", section, re.MULTILINE)
    told = {check.name: (check.question.__doc__ or "").splitlines()[0].rstrip(".") for check in CHECKS}
    assert len(told) == len(CHECKS) == len(lines) > 20
    assert dict(lines) == told


def asked(monkeypatch: pytest.MonkeyPatch, refused: Scope | None, *, existing: bool = True) -> list[str]:
    """The checks that a preflight asks, of two in each scope: a plain one, and one that is not asked once something is refused.

    :param refused: the scope whose plain check refuses
    :param existing: whether the run's tables exist
    """
    names: list[str] = []

    def made(scope: Scope, unless_refused: bool) -> Check:
        name = f"{scope.name}{' unless refused' if unless_refused else ''}"

        def question(_: Any) -> Iterator[Finding]:
            names.append(name)
            if scope is refused and not unless_refused:
                yield refusal(name, "it is in the way")

        return Check(name, scope, name, question, unless_refused)

    monkeypatch.setattr(preflight, "CHECKS", [made(scope, unless) for scope in Scope for unless in (False, True)])
    context = SimpleNamespace(store=SimpleNamespace(table="events"))
    planned: Any = SimpleNamespace(context=context, existing=["orders"] if existing else [])
    found = preflight.preflight(planned)
    assert [finding.about for finding in found] == ([refused.name] if refused else [])
    return names


def test_where_nothing_is_refused_every_check_is_asked_scope_by_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    names = asked(monkeypatch, None)
    assert names == [name for scope in Scope for name in (scope.name, f"{scope.name} unless refused")]


def test_without_tables_nobody_asks_about_existing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {scope.name for scope in Scope} - set(asked(monkeypatch, None, existing=False)) == {"EXISTING_TABLES"}


@pytest.mark.parametrize(
    ("refused", "left_out"),
    [
        (Scope.CHOICE, set()),
        (Scope.EVENT_STORE, {"EVENTS"}),
        (Scope.SERVER, {"TABLES", "BESIDE", "EXISTING_TABLES"}),
        (Scope.TABLES, set()),
    ],
)
def test_what_a_refusal_leaves_unasked(monkeypatch: pytest.MonkeyPatch, refused: Scope, left_out: set[str]) -> None:
    names = asked(monkeypatch, refused)
    assert {scope.name for scope in Scope} - set(names) == left_out
    after = names[names.index(refused.name) :]
    assert not [name for name in after if name.endswith("unless refused")]
