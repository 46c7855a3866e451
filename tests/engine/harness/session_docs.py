"""Reads docs/reference/sessions.md: the settings that the engine sets, and all other variables of a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from projection_rebuild.dialects.base.settings import Setting
from projection_rebuild.dialects.mysql import session as mysql_session
from projection_rebuild.dialects.postgres import session as postgres_session
from projection_rebuild.dialects.sqlite import session as sqlite_session

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "sessions.md"

SETS: dict[str, Sequence[Setting]] = {
    "PostgreSQL": postgres_session.SETTINGS,
    "MySQL and MariaDB": mysql_session.COMMON,
    "MySQL alone": mysql_session.MYSQL,
    "MariaDB alone": mysql_session.MARIADB,
    "SQLite": sqlite_session.SETTINGS,
}
"""The settings that the code declares, by the heading of their table."""

SPECIAL = {"sql_mode": "see below", "old_mode": "see below", "timestamp": "`DEFAULT`"}


def rendered(settings: Sequence[Setting]) -> str:
    """The table of settings in the form of the page."""
    lines = ["| setting | our value | with another one |", "| --- | --- | --- |"]
    for each in settings:
        value = SPECIAL.get(each.name) or (f"`{each.value}`" if each.value else "empty")
        said = f"{value}, where we may" if each.restricted else value
        said += f" (from {'.'.join(map(str, each.since))} on)" if each.since else ""
        lines.append(f"| `{each.name}` | {said} | {each.why} |")
    return "\n".join(lines)


def section(heading: str) -> str:
    """The text of the page below a heading, up to the next one of its level."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found, f"docs/reference/sessions.md has no section {heading}"
    return found[1]


def patterns(heading: str) -> list[str]:
    """The names, and patterns of names, in the first column of all tables of a section."""
    rows = (line.split("|")[1] for line in section(heading).splitlines() if line.startswith("| `"))
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def unclassified(heading: str, names: Sequence[str]) -> list[str]:
    """The names that a section of the page does not mention."""
    known = [each.lower() for each in patterns(heading)]
    return [name for name in names if not any(fnmatchcase(name.lower(), each) for each in known)]
