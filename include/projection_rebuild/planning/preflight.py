"""All that speaks against a rebuild, or that a person should know before it, in one pass over stores and tables. Touches nothing."""

from __future__ import annotations

from collections.abc import Collection

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks import CHECKS
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope


def preflight(planned: PreflightInput) -> list[Finding]:
    """Asks every check that can be asked, whatever others have found.

    :returns: what they found, each finding once
    """
    findings: list[Finding] = []
    refused: set[Scope] = set()
    for scope in Scope:
        if not _can_be_asked(scope, planned, refused):
            continue
        for check in (check for check in CHECKS if check.scope is scope):
            if check.unless_refused and any(finding.refuses for finding in findings):
                continue
            found = check.findings(planned)
            findings += found
            if any(finding.refuses for finding in found):
                refused.add(scope)
    return list(dict.fromkeys(findings))


def _can_be_asked(scope: Scope, planned: PreflightInput, refused: Collection[Scope]) -> bool:
    if scope.needs in refused:
        return False
    return scope is not Scope.EXISTING_TABLES or bool(planned.existing)
