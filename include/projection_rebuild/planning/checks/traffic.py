"""Limits on traffic that this database does not report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.checks.registry import Scope, check
from projection_rebuild.traffic.probe import untold


@check(Scope.TABLES, "throttle")
def throttle(planned: PreflightInput) -> Iterator[Finding]:
    """Limits of the throttle on values that this database does not report."""
    limits = planned.context.spec.throttle
    dialect, connection = planned.dialect, planned.connection
    if limits.max_replica_lag is not None and limits.replica_lag is None and dialect.traffic.replica_lag(connection) is None:
        problem = "this server does not know how far its replicas are behind, so max_replica_lag is not looked at"
        yield Finding(about="throttle", problem=problem, remedy="give throttle.replica_lag, SQL for the seconds")
    if limits.max_active_sessions is not None and dialect.traffic.active_sessions(connection) is None:
        problem = "this database does not count sessions, so max_active_sessions is not looked at"
        yield Finding(about="throttle", problem=problem, remedy="take it out")


@check(Scope.EXISTING_TABLES, "low_traffic")
def low_traffic(planned: PreflightInput) -> Iterable[Finding]:
    """Limits of the low-traffic gate on values that this database does not report."""
    return untold(planned.step, planned.existing)
