"""Replaying a projector in shards: each with a checkpoint of its own, joined into the projector's single one when all are done.

A shard's rows are its own: see :mod:`projection_rebuild.replay.shard_ownership`. Rows are never merged.
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
    """Into how many shards each projector is divided; those that are not have no entry."""
    counts = {}
    for name in projectors:
        projector = context.projector(name)
        wanted = options.shards or context.spec.replay.shards_of(name)
        if wanted > 1 and why_whole(context, projector) is None:
            counts[name] = wanted
    return counts


def why_whole(context: Context, projector: type[Projector]) -> str | None:
    """Why a projector is not divided, whatever is asked for; None: it can be."""
    partition = projector.partition()
    if partition is None:
        return "it does not say whose rows its events touch, so that these need their total order"
    if projector.reads:
        return "it looks at rows of other projectors, which stand still for no shard"
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
    """Brings one shard of a projector to the position at which all of them are joined, from its checkpoint on.

    :raises StepOrderError: the tables are not cloned, or there is no such shard
    :raises ShardError: an event reaches rows of another shard
    :raises WriteError: the database refuses rows; a double one may be another shard's
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
    """Joins the shards of a projector, if it has any, and replays what comes after them: see :func:`replay`."""
    join(context, name, stopped)
    return replay(context, name, stopped, closed)


def join(context: Context, name: str, stopped: Callable[[], bool]) -> None:
    """Makes one checkpoint of those of the shards. Shards that are not done are replayed first, one after the other.

    :raises ShardError: a row was reached from two shards
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
    done = list(ledger.shards.checkpoints(name).values())
    asked_for = ledger.shards.asked(name)
    if any(each.column is not None for each in asked_for):
        index_lookups(step, projector)
    for asked in asked_for:
        _look_for(step, projector, asked, len(done))
    head = earliest(each.head for each in done)
    with step.dialect.transaction(step.connection):
        ledger.checkpoints.advance(
            whole, position=head, head=head, events=sum(each.events for each in done), seconds=max(each.seconds for each in done)
        )
        ledger.shards.join(name)
    step.log(f"{name}: {len(done)} shards joined at {said(head)}")


def _look_for(step: Step, projector: type[Projector], asked: Asked, count: int) -> None:
    """What a shard did not find must not be there now by another shard's doing.

    :raises ShardError: it is
    """
    kind = next(each for each in map(row_type, projector.owns) if each.table == asked.table)
    dialect, green = step.dialect, step.context.table_set(kind.table).green
    if asked.column is None:
        found = dialect.rows.select_rows(step.connection, step.schema, green, kind, [asked.values])
    else:
        found = dialect.rows.select_where(step.connection, step.schema, green, kind, kind.column(asked.column), asked.values)
    partition = projector.partition()
    at = kind.attributes.index(partition.attribute(kind)) if partition else 0
    for values in found:
        # By the event store's database, which has divided the events.
        if step.context.store.shard_of(str(values[at]), count) != asked.shard:
            raise ShardError(
                f"{projector.name()}: a row of {kind.table} was reached from two shards, asked for in vain by the one and made by the other. "
                "Replay it without shards, or correct `partition_by`"
            )
