"""Measures what the application is doing now: queries the databases for the numbers that the spec limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step
from projection_rebuild.traffic.low_traffic import Traffic
from projection_rebuild.traffic.throttle import replica_lag


def traffic(step: Step, tables: Sequence[TableSet], earlier: Traffic | None = None) -> Traffic:
    """Measures what the application is doing now, and to these tables: the appends, and each number that has a limit.

    :param earlier: an earlier measurement, from which this one counts the appended events
    """
    dialect, lag_sql = step.dialect, step.spec.throttle.replica_lag
    limits = _limits(step.context)
    head = step.context.store.newest()
    return Traffic(
        head=head,
        appended=None if earlier is None else step.context.store.count(earlier.head, head),
        active_sessions=dialect.traffic.active_sessions(step.connection) if "max_active_sessions" in limits else None,
        at=datetime.now(UTC),
        reads=dialect.traffic.table_reads(step.connection, tables) if "max_reads_per_minute" in limits else None,
        transaction_age=dialect.traffic.transaction_age(step.connection, tables) if "max_transaction_age" in limits else None,
        replica_lag=replica_lag(step, lag_sql) if "max_replica_lag" in limits else None,
    )


SEEN = {
    "max_active_sessions": "active_sessions",
    "max_reads_per_minute": "reads",
    "max_transaction_age": "transaction_age",
    "max_replica_lag": "replica_lag",
}
"""Limits on numbers that a database may not report, each with the measured attribute of :class:`Traffic`."""


def _limits(context: Context) -> set[str]:
    return {name for name in SEEN if getattr(context.spec.low_traffic, name) is not None}


def untold(step: Step, tables: Sequence[TableSet]) -> Iterator[Finding]:
    """Limits of the spec on numbers that this database does not report: such a limit would delay nothing."""
    limits = _limits(step.context)
    measured = traffic(step, tables) if limits else None
    for name in sorted(limits):
        if getattr(measured, SEEN[name]) is None:
            yield Finding(
                about=f"low_traffic.{name}",
                problem="this database does not report it, or not to the engine's role, so that the limit delays nothing",
                remedy="see docs/how-to/schedule-and-windows.md for what each database reports, or leave the limit out",
            )
