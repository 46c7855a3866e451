"""What the application is doing now: asks the databases for what the spec has limits on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.traffic.low_traffic import Traffic
from projection_rebuild.traffic.throttle import replica_lag


def traffic(context: Context, connection: sa.Connection, tables: Sequence[TableSet], earlier: Traffic | None = None) -> Traffic:
    """What the application is doing now, and to these tables. Beside the appends, only what has a limit is asked for.

    :param earlier: what an earlier look has seen; the events since then are counted
    """
    dialect, asked_by = context.dialect, context.spec.throttle.replica_lag
    limits = _limits(context)
    head = context.store.newest()
    return Traffic(
        head=head,
        appended=None if earlier is None else context.store.count(earlier.head, head),
        active_sessions=dialect.active_sessions(connection) if "max_active_sessions" in limits else None,
        at=datetime.now(UTC),
        reads=dialect.table_reads(connection, tables) if "max_reads_per_minute" in limits else None,
        transaction_age=dialect.transaction_age(connection, tables) if "max_transaction_age" in limits else None,
        replica_lag=replica_lag(context, connection, asked_by) if "max_replica_lag" in limits else None,
    )


SEEN = {
    "max_active_sessions": "active_sessions",
    "max_reads_per_minute": "reads",
    "max_transaction_age": "transaction_age",
    "max_replica_lag": "replica_lag",
}
"""Limits on what a database may not tell, and what is held against them."""


def _limits(context: Context) -> set[str]:
    return {name for name in SEEN if getattr(context.spec.low_traffic, name) is not None}


def untold(context: Context, connection: sa.Connection, tables: Sequence[TableSet]) -> Iterator[Finding]:
    """Limits of the spec on what this database does not tell: they would hold nothing up."""
    limits = _limits(context)
    seen = traffic(context, connection, tables) if limits else None
    for name in sorted(limits):
        if getattr(seen, SEEN[name]) is None:
            yield Finding(
                about=f"low_traffic.{name}",
                problem="this database does not tell, or not to our role, so that the limit holds nothing up",
                remedy="see docs/how-to/schedule-and-windows.md for what each database tells, or leave it out",
            )
