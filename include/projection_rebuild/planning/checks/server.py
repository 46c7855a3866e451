"""The server: its version, its settings, and the engine's privileges."""

from __future__ import annotations

from projection_rebuild.dialects.base import RunTables
from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check


@check(Scope.SERVER, "server")
def version(planned: PreflightInput) -> list[Finding]:
    """A version that rebuilds do not work with."""
    return planned.dialect.probe.too_old(planned.connection)


@check(Scope.BESIDE, "server")
def settings(planned: PreflightInput) -> list[Finding]:
    """Settings and privileges with which a rebuild would fail; the database's module `preflight` knows them."""
    run_tables = RunTables(planned.context.schema, planned.existing, planned.context.ledger.tables)
    return planned.dialect.probe.preflight(planned.connection, run_tables)
