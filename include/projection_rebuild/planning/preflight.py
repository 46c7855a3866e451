"""Runs the checks of a plan in one pass. They only read.

Their findings refuse the rebuild, or say what an operator should know before it.
"""

from __future__ import annotations

from collections.abc import Collection

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks import CHECKS
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope


def preflight(planned: PreflightInput) -> list[Finding]:
    """Runs every check whose scope allows it, whatever other checks have found.

    :returns: their findings, each once
    """
    findings: list[Finding] = []
    refused: set[Scope] = set()
    for scope in Scope:
        if not _can_run(scope, planned, refused):
            continue
        for check in (check for check in CHECKS if check.scope is scope):
            if check.unless_refused and any(finding.refuses for finding in findings):
                continue
            new = check.findings(planned)
            findings += new
            if any(finding.refuses for finding in new):
                refused.add(scope)
    return list(dict.fromkeys(findings))


def _can_run(scope: Scope, planned: PreflightInput, refused: Collection[Scope]) -> bool:
    """Whether the checks of a scope can run.

    :param refused: the scopes in which a check has refused the rebuild
    """
    if scope.needs in refused:
        return False
    return scope is not Scope.EXISTING_TABLES or bool(planned.existing)
