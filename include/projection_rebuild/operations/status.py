"""The state of a rebuild at one moment: its latest runs, its tables, and the application's traffic. Only reads.

It serves viewers outside of a run, such as the page. A look costs a few small statements. Of the application's tables
it reads the event store alone: the first and the last position, and how many events have come since the look before.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from projection_rebuild.ledger import SHARD, Checkpoint, DeadLetter, Run, Wait
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.run import record
from projection_rebuild.run.context import Context
from projection_rebuild.run.report import Report
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.traffic import probe
from projection_rebuild.traffic.low_traffic import Traffic


class Progress(BaseModel):
    """The progress of one projector's replay, or of one of its shards.

    :param shard: its number, from 1; None: the projector itself
    :param events: events handled so far
    :param position: every event of the projector up to here is in green; None: the replay has not begun
    :param head: the high-water mark that the replay goes up to; None: not known yet
    :param seconds: for how long workers have replayed, over all attempts
    """

    projector: str
    events: int
    position: Place
    head: Place
    seconds: float
    shard: int | None = None


class RunSeen(BaseModel):
    """A run that is not over, as the ledger has it now.

    :param holds: the tables that the run claims, so that no other run may rebuild them
    :param waits: workers of the run that rest or wait, each with its reason
    :param dead_letters: the events that the run has set aside, in the order of their positions
    """

    report: Report
    progress: list[Progress]
    holds: list[str]
    waits: list[Wait]
    dead_letters: list[DeadLetter]


class Look(BaseModel):
    """The state of a rebuild at one moment.

    :param traffic: what the application is doing, in all read models of the spec
    :param first: the lowest position of the event store
    :param runs: the latest runs that are not over, the newest first; a run that waits for its retention is over
    """

    traffic: Traffic
    runs: list[RunSeen]
    first: Place = None


class TableSeen(BaseModel):
    """A table of a read model, under one of its three names.

    :param table: the live name
    :param name: this table's name
    :param role: blue, green or old
    :param rows: the number of rows, roughly
    :param size: the size in bytes, roughly, indexes included
    :param run_id: the run that has created green or retired old; None: no run has
    :param drop_after: for old, when the engine may drop it
    """

    table: str
    name: str
    role: str
    rows: int
    size: int
    run_id: str | None = None
    drop_after: datetime | None = None


def _projector_and_shard(worker: str) -> tuple[str, int]:
    """The projector's name and the shard's number, from 1; 0: the projector itself."""
    name, _, number = worker.partition(SHARD)
    return name, int(number) + 1 if number else 0


def _progress(worker: str, checkpoint: Checkpoint) -> Progress:
    name, shard = _projector_and_shard(worker)
    return Progress(
        projector=name,
        events=checkpoint.events,
        position=checkpoint.position,
        head=checkpoint.head,
        seconds=checkpoint.seconds,
        shard=shard or None,
    )


LATEST = 20
"""How many runs a status shows at most."""


def look(context: Context, earlier: Traffic | None = None) -> Look:
    """The state of a rebuild now; see :meth:`projection_rebuild.rebuild.Rebuild.look`."""
    with open_step(context) as step:
        runs = _runs(step) if step.ledger.exists() else []
        traffic = probe.traffic(step, _every_table(context), earlier)
        return Look(traffic=traffic, runs=runs, first=context.store.first())


def _every_table(context: Context) -> list[TableSet]:
    return [context.table_set(table) for projector in context.projectors.values() for table in projector.tables()]


def _runs(
    step: Step,
) -> list[RunSeen]:
    claims = step.ledger.claims.all()
    runs = step.ledger.runs.latest(step.spec.rebuild, LATEST)
    return [_seen(step, run, claims) for run in runs if not run.state.is_over]


def _seen(step: Step, run: Run, claims: dict[str, str]) -> RunSeen:
    report = record.made(step, run)
    checkpoints = step.ledger.of(run.run_id).checkpoints.of_workers()
    return RunSeen(
        report=report,
        progress=[
            _progress(worker, checkpoints[worker])
            for name in report.plan.projectors
            for worker in sorted(checkpoints, key=_projector_and_shard)
            if _projector_and_shard(worker)[0] == name
        ],
        holds=sorted(table for table, holder in claims.items() if holder == run.run_id),
        waits=step.ledger.of(run.run_id).signals.waits(),
        dead_letters=step.ledger.of(run.run_id).dead_letters.known_of_run(),
    )


def tables(context: Context) -> list[TableSeen]:
    """The tables of the read models; see :meth:`projection_rebuild.rebuild.Rebuild.tables`."""
    with open_step(context) as step:
        has_ledger = step.ledger.exists()
        retired = {table.old: table for table in step.ledger.owned_tables.retired()} if has_ledger else {}
        listed = []
        for names in _every_table(context):
            for role, name in (("blue", names.blue), ("green", names.green), ("old", names.old)):
                table_size = context.dialect.inspector.table_size(step.connection, context.schema, name)
                if table_size is None:
                    continue
                run_id = step.ledger.owned_tables.run_of_green(name) if has_ledger and role == "green" else None
                old = retired.get(name) if role == "old" else None
                listed.append(
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
    return listed
