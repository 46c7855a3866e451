"""Disk space."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.model.findings import Finding, refusal
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check

MARGIN = 1.2
"""How many times the present size of the tables must be free: tables grow, and servers sort indexes on disk."""


@check(Scope.EXISTING_TABLES, "disk")
def room(planned: PreflightInput) -> Iterator[Finding]:
    """Whether the doubles of the tables fit on the disk, where the database reports its free space."""
    space = planned.space
    if space.free is not None and space.free < space.needed * MARGIN:
        yield refusal("disk", space.describe(), f"make room for {MARGIN:g} times of that")
