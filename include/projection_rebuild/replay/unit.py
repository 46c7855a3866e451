"""Defines what replays one projector as a unit: its handlers, its SQL, or a program."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import ProjectorError
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place, is_before
from projection_rebuild.replay.external.replay import ExternalReplay
from projection_rebuild.replay.foreign_reads import foreign_reads_of
from projection_rebuild.replay.handler_replay import HandlerReplay
from projection_rebuild.replay.pace import Pace
from projection_rebuild.replay.partial import OpenSelection
from projection_rebuild.replay.set_based import ineligible_because
from projection_rebuild.replay.shard_ownership import Ownership
from projection_rebuild.replay.sql_replay import SqlReplay
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step


class ReplayUnit(Protocol):
    """One projector's replay, whether handlers, SQL or a program project its events."""

    @property
    def projector(self) -> type[Projector]:
        """The projector."""

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint as this worker has last moved it."""

    @property
    def dead_letters(self) -> int:
        """The number of dead letters up to the checkpoint."""

    def begin(self) -> Checkpoint:
        """Recovers from earlier attempts: retries their dead letters, or recovers from an interrupted call.

        :returns: the checkpoint at which this attempt begins
        """

    def at_work(self) -> AbstractContextManager[None]:
        """The context in which the whole replay runs."""

    def replay_to(self, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        """Replays up to a high-water mark, in transactions of its own.

        :param progress: called with the checkpoint, to show it
        :raises Interrupted: the worker had to stop; a retry goes on
        """

    def finish(self, stopped: Callable[[], bool], progress: Callable[[Checkpoint], None]) -> None:
        """Ends the replay after the last head, before the engine builds indexes.

        :raises Interrupted: the worker had to stop; a retry goes on
        """


def unit_of(
    step: Step,
    plan: Plan,
    checkpoint: Checkpoint,
    selection: OpenSelection | None,
    stopped: Callable[[], bool] | None = None,
) -> HandlerReplay | ExternalReplay:
    """Creates the replay of the projector whose checkpoint this is.

    :param selection: the part of its rows that the run rebuilds; None: all rows
    :param stopped: see :class:`ExternalReplay`
    :raises ProjectorError: the projector has only SQL, and the engine cannot use it
    """
    projector = step.context.projector(checkpoint.projector)
    if issubclass(projector, ExternalProjector):
        return ExternalReplay(step.context, projector, checkpoint, step.connection, stopped)
    reads = foreign_reads_of(step, plan, projector)
    # Only handlers show which rows an event changes, so a part needs them.
    in_part = selection is not None and is_before(checkpoint.position, selection.settled)
    by_sql = _is_replayed_by_sql(step.context, projector, handlers_tell=in_part)
    return (SqlReplay if by_sql else HandlerReplay)(
        step.context, projector, checkpoint, step.connection, plan.already, selection, reads
    )


def shard_unit(step: Step, projector: type[Projector], checkpoint: Checkpoint, shard: Ownership) -> HandlerReplay:
    """Creates the replay of one shard.

    :param checkpoint: the shard's
    :raises ProjectorError: the projector has only SQL; a shard needs handlers, which show the rows of an event
    """
    _is_replayed_by_sql(step.context, projector, handlers_tell=True)
    return HandlerReplay(step.context, projector, checkpoint, step.connection, scope=shard)


def _is_replayed_by_sql(context: Context, projector: type[Projector], *, handlers_tell: bool) -> bool:
    """Whether the engine uses a projector's SQL.

    :param handlers_tell: whether the replay needs handlers to find the rows that an event changes
    :raises ProjectorError: the engine cannot use it, and the projector has no handlers
    """
    reason = ineligible_because(context, projector)
    if reason is None and not handlers_tell:
        return True
    if not projector.has_handlers():
        raise ProjectorError(
            f"{projector.name()} has no handlers, and its SQL cannot be used: {reason or 'none for this database'}"
        )
    return False
