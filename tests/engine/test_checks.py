"""The registry of the plan's checks: each subject is in it, and each check is on the page."""

from __future__ import annotations

import re
from pathlib import Path

from projection_rebuild.planning import checks
from projection_rebuild.planning.checks import CHECKS, SUBJECTS
from projection_rebuild.planning.checks.registry import registered

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
