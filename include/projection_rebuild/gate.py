"""The low-traffic gate's look: asks the databases, judges, and notes for whoever watches what was seen. The waiting is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import sqlalchemy as sa

from projection_rebuild.context import Context
from projection_rebuild.control import SWAP_NOW, TRAFFIC
from projection_rebuild.findings import Finding
from projection_rebuild.fresh_proof import look_again
from projection_rebuild.ledger import RunState
from projection_rebuild.low_traffic import Outcome, Traffic, Verdict, Waiting, judge
from projection_rebuild.names import TableSet
from projection_rebuild.throttle import replica_lag


def look_at_traffic(context: Context, waiting: Waiting) -> Verdict:
    """One look at the traffic, and at whether somebody has said "swap now" meanwhile.

    :param waiting: what the look before has kept
    :raises StepOrderError: the run is not verified, or was given up while it waited
    :raises Diverged: green is no longer what the events make
    """
    section = context.spec.low_traffic
    with context.dialect.connect() as connection:
        run = context.ledger.run(connection, context.run_id, at_least=RunState.VERIFIED)
        look_again(context)
        said = context.ledger.notes(connection, context.run_id).get(SWAP_NOW)
        if said or context.options_of(run).swap_now:
            who = f"{said.by} said" if said else "chosen for this run"
            return Verdict(Outcome.PASS, f"swap now ({who}): not waiting for low traffic", waiting)
        tables = context.table_sets(context.plan_of(run))
        seen = traffic(context, connection, tables, waiting.earlier)
        found = judge(section, context.spec.window_zone, seen, waiting)
        context.ledger.say(connection, context.run_id, TRAFFIC, _noted(found))
    return found


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


def _noted(found: Verdict) -> dict[str, object]:
    """``outcome``, ``message``, ``since``, ``quiet_since``, ``opens``, ``closes`` and ``probes`` (see :class:`Probe`)."""
    return {
        "outcome": found.outcome,
        "message": found.message,
        "since": found.waiting.since,
        "quiet_since": found.waiting.quiet_since,
        "opens": found.opens,
        "closes": found.closes,
        "probes": [asdict(each) for each in found.probes],
    }
