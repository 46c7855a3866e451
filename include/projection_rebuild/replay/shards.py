"""Replays a projector in shards. Each has its own checkpoint; when all are done, the engine joins these into one.

A row belongs to one shard: see :mod:`projection_rebuild.replay.shard_ownership`. The engine never merges rows.
"""

from __future__ import annotations

from collections.abc import Callable

from projection_rebuild.authoring.partition import Shard
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import NotReplayed, ShardError, StepOrderError
from projection_rebuild.ledger import Asked, Checkpoint, RunState, refuse_within_switch
from projection_rebuild.model.positions import earliest, said
from projection_rebuild.model.results import ReplayResult
from projection_rebuild.replay.indexes import index_lookups
from projection_rebuild.replay.projector_replay import replay
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.replay.set_based import ineligible_because
from projection_rebuild.replay.shard_ownership import Ownership
from projection_rebuild.replay.unit import shard_unit
from projection_rebuild.rows.types import row_type
from projection_rebuild.run.context import Context
from projection_rebuild.run.progress import ProgressLog
from projection_rebuild.run.step import Step, open_step
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.traffic.throttle import Throttle


def shard_counts(context: Context, projectors: list[str], options: RunOptions) -> dict[str, int]:
    """The number of shards of each projector; projectors without shards have no entry."""
    counts = {}
    for name in projectors:
        projector = context.projector(name)
        count = options.shards or context.spec.replay.shards_of(name)
        if count > 1 and why_whole(context, projector) is None:
            counts[name] = count
    return counts


def why_whole(context: Context, projector: type[Projector]) -> str | None:
    """Why a projector cannot be divided into shards; None: it can."""
    partition = projector.partition()
    if partition is None:
        return "it does not say whose rows its events touch, so these need their total order"
    if projector.reads:
        return "it looks at rows of other projectors, which keep changing while a shard is replayed"
    if partition.field is not None and not context.store.divides_by_fields:
        return "its events are stored in a form that SQL of this server cannot look into"
    stage = context.spec.stage_of(projector.name())
    if stage is not None and not stage.any_time:
        return "it is replayed within the windows of its stage, by one worker"
    if not context.spec.begins_at_once(projector.name()):
        return "it is replayed in a later stage, and shards begin when the tables are made"
    if ineligible_because(context, projector) is None:
        return "it is replayed by its SQL, whose work the database divides by itself if it can"
    return None


def replay_shard(context: Context, name: str, number: int, stopped: Callable[[], bool]) -> ReplayResult:
    """Replays one shard of a projector from its checkpoint to the position at which the engine joins the shards.

    :param number: of the shard, from 0
    :param stopped: whether the worker has to stop
    :raises StepOrderError: the tables are not cloned, or the run has no shard with this number
    :raises ShardError: an event reaches rows of another shard
    :raises WriteError: the database refuses rows; a duplicate may come from another shard
    """
    projector = context.projector(name)
    with open_step(context, requires=RunState.CLONED, migrates=True) as step:
        run = step.run
        refuse_within_switch(run)
        count = step.plan.shards.get(name, 0)
        partition = projector.partition()
        if number >= count or partition is None:
            raise StepOrderError(f"{name} has {count} shards in the run {context.run_id}; there is no shard {number + 1}")
        shard = Shard(number, count, partition.field)
        label = f"{name} {shard.describe()}"
        first = step.ledger.shards.checkpoints(name).get(number)
        if first is None:
            whole = step.ledger.checkpoints.of_projectors().get(name)
            if whole is None:
                raise NotReplayed(f"{name} has no checkpoint in the run {context.run_id}; run clone_tables again")
            context.log(f"{label}: the shards are joined already; there is nothing to replay")
            return ReplayResult(label, 0, whole.position, 0.0, whole.position)
        context.log(f"{label}: {'beginning at' if first.position is None else 'resuming at'} {said(first.position)}")
        unit = shard_unit(step, projector, first, Ownership(label, shard, partition))
        throttle, progress = (
            Throttle(context, first.projector, step.connection, stopped, label),
            ProgressLog(context, first, label),
        )
        try:
            with unit.at_work():
                unit.replay_to(first.head, throttle, progress)
        except WriteError as error:
            raise WriteError(
                f"{label}: {error.message}. Or two shards make the same row; replay it without shards, or correct `partition_by`",
                error.cause,
                error.event_type,
                error.position,
            ) from None
    last = unit.checkpoint
    return ReplayResult(label, last.events - first.events, last.position, last.seconds - first.seconds, first.position)


def replay_all(
    context: Context, name: str, stopped: Callable[[], bool], closed: Callable[[], bool] = lambda: False
) -> ReplayResult:
    """Joins the shards of a projector, if it has any, and replays the events after them: see :func:`replay`."""
    join(context, name, stopped)
    return replay(context, name, stopped, closed)


def join(context: Context, name: str, stopped: Callable[[], bool]) -> None:
    """Joins the checkpoints of the shards into one. It first replays shards that are not done, one after the other.

    :raises ShardError: two shards have reached one row
    """
    with open_step(context, migrates=True) as step:
        shards = step.ledger.shards.checkpoints(name)
        whole = step.ledger.checkpoints.of_projectors().get(name)
    if not shards or whole is None:
        return
    for number, checkpoint in shards.items():
        if checkpoint.is_behind:
            context.log(replay_shard(context, name, number, stopped).describe())
    with open_step(context) as step:
        _join(step, name, whole)


def _join(step: Step, name: str, whole: Checkpoint) -> None:
    ledger, projector = step.ledger, step.context.projector(name)
    shards = list(ledger.shards.checkpoints(name).values())
    missed = ledger.shards.asked(name)
    if any(asked.column is not None for asked in missed):
        index_lookups(step, projector)
    for asked in missed:
        _look_for(step, projector, asked, len(shards))
    head = earliest(shard.head for shard in shards)
    events, seconds = sum(shard.events for shard in shards), max(shard.seconds for shard in shards)
    with step.dialect.transaction(step.connection):
        ledger.checkpoints.advance(whole, position=head, head=head, events=events, seconds=seconds)
        ledger.shards.join(name)
    step.log(f"{name}: {len(shards)} shards joined at {said(head)}")


def _look_for(step: Step, projector: type[Projector], asked: Asked, count: int) -> None:
    """Checks that no other shard has created a row that a shard did not find.

    :param asked: the key or the lookup of the missing row
    :param count: the number of shards
    :raises ShardError: another shard has created the row
    """
    kind = next(owned for owned in map(row_type, projector.owns) if owned.table == asked.table)
    dialect, green = step.dialect, step.context.table_set(kind.table).green
    if asked.column is None:
        rows = dialect.rows.select_rows(step.connection, step.schema, green, kind, [asked.values])
    else:
        rows = dialect.rows.select_where(step.connection, step.schema, green, kind, kind.column(asked.column), asked.values)
    partition = projector.partition()
    index = kind.attributes.index(partition.attribute(kind)) if partition else 0
    for row in rows:
        # The event store's database computes the shard, since it has divided the events.
        if step.context.store.shard_of(str(row[index]), count) != asked.shard:
            raise ShardError(
                f"{projector.name()}: a row of {kind.table} was reached from two shards: the one did not find it, the other made it. "
                "Replay it without shards, or correct `partition_by`"
            )
