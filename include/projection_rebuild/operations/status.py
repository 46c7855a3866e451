"""What is going on with a rebuild: its latest runs, its tables, and the application's traffic. Only reads.

For whoever watches from outside of a run. A look costs a few small statements. It reads no table of the application but the event store,
of which it asks for the first and the last position, and how many events came since the look before.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from pydantic import BaseModel

from projection_rebuild.ledger import SHARD, Checkpoint, DeadLetter, Run, Wait
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.run import record
from projection_rebuild.run.context import Context
from projection_rebuild.run.report import Report
from projection_rebuild.traffic import probe
from projection_rebuild.traffic.low_traffic import Traffic


class Progress(BaseModel):
    """How far one projector's replay is, or that of one of its shards.

    :param shard: its number, from 1; None: the projector itself
    :param events: events handled so far
    :param position: every event of the projector up to here is in green; None: not begun
    :param head: the settled position that it is heading for; None: not known yet
    :param seconds: how long it has been at work, over all attempts
    """

    projector: str
    events: int
    position: Place
    head: Place
    seconds: float
    shard: int | None = None


class RunSeen(BaseModel):
    """A run that goes on, or was left half-way, as the ledger has it now.

    :param holds: the tables that nobody else may rebuild meanwhile
    :param waits: its workers that rest or wait, each with its reason
    :param dead_letters: the events that it has set aside, in the order of their positions
    """

    report: Report
    progress: list[Progress]
    holds: list[str]
    waits: list[Wait]
    dead_letters: list[DeadLetter]


class Look(BaseModel):
    """What is going on at one moment.

    :param traffic: what the application is doing, in all read models of the spec
    :param first: the lowest position of the event store
    :param runs: of the latest runs those that are not over, the newest first; one that waits for its retention is over
    """

    traffic: Traffic
    runs: list[RunSeen]
    first: Place = None


class TableSeen(BaseModel):
    """A table of a read model, under one of its three names.

    :param table: the live name
    :param name: the name that this one has
    :param role: blue, green or old
    :param rows: about how many there are
    :param size: about how many bytes, indexes included
    :param run_id: for green the run that has made it, for old the one that has retired it; None: nobody of ours
    :param drop_after: for old, when it may go
    """

    table: str
    name: str
    role: str
    rows: int
    size: int
    run_id: str | None = None
    drop_after: datetime | None = None


def _projector_and_shard(worker: str) -> tuple[str, int]:
    """0: the projector itself."""
    name, _, number = worker.partition(SHARD)
    return name, int(number) + 1 if number else 0


def _progress(worker: str, found: Checkpoint) -> Progress:
    name, shard = _projector_and_shard(worker)
    return Progress(
        projector=name, events=found.events, position=found.position, head=found.head, seconds=found.seconds, shard=shard or None
    )


LATEST = 20
"""So many runs are looked at."""


def look(context: Context, earlier: Traffic | None = None) -> Look:
    """See :meth:`projection_rebuild.rebuild.Rebuild.look`."""
    with context.dialect.connect() as connection:
        seen = _runs(context, connection) if context.ledger.exists(connection) else []
        traffic = probe.traffic(context, connection, _every_table(context), earlier)
        return Look(traffic=traffic, runs=seen, first=context.store.first())


def _every_table(context: Context) -> list[TableSet]:
    return [context.table_set(table) for projector in context.projectors.values() for table in projector.tables()]


def _runs(context: Context, connection: sa.Connection) -> list[RunSeen]:
    claims = context.ledger.claims.all(connection)
    runs = context.ledger.runs.latest(connection, context.spec.rebuild, LATEST)
    return [_seen(context, connection, run, claims) for run in runs if not run.state.is_over]


def _seen(context: Context, connection: sa.Connection, run: Run, claims: dict[str, str]) -> RunSeen:
    report = record.made(context, connection, run)
    checkpoints = context.ledger.checkpoints.of_workers(connection, run.run_id)
    return RunSeen(
        report=report,
        progress=[
            _progress(worker, checkpoints[worker])
            for name in report.plan.projectors
            for worker in sorted(checkpoints, key=_projector_and_shard)
            if _projector_and_shard(worker)[0] == name
        ],
        holds=sorted(table for table, holder in claims.items() if holder == run.run_id),
        waits=context.ledger.signals.waits(connection, run.run_id),
        dead_letters=context.ledger.dead_letters.known_of_run(connection, run.run_id),
    )


def tables(context: Context) -> list[TableSeen]:
    """See :meth:`projection_rebuild.rebuild.Rebuild.tables`."""
    with context.dialect.connect() as connection:
        known = context.ledger.exists(connection)
        retired = {each.old: each for each in context.ledger.owned_tables.retired(connection)} if known else {}
        seen = []
        for names in _every_table(context):
            for role, name in (("blue", names.blue), ("green", names.green), ("old", names.old)):
                table_size = context.dialect.table_size(connection, context.schema, name)
                if table_size is None:
                    continue
                run_id = context.ledger.owned_tables.run_of_green(connection, name) if known and role == "green" else None
                old = retired.get(name) if role == "old" else None
                seen.append(
                    TableSeen(
                        table=names.blue,
                        name=name,
                        role=role,
                        rows=table_size.rows,
                        size=table_size.size,
                        run_id=old.run_id if old else run_id,
                        drop_after=old.drop_after if old else None,
                    )
                )
    return seen
