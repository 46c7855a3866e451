"""What is replayed as one: a projector by its handlers, by its SQL, or as a program."""

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
    """One projector's replay, whatever projects its events."""

    @property
    def projector(self) -> type[Projector]:
        """The projector."""

    @property
    def checkpoint(self) -> Checkpoint:
        """As this worker has moved it last."""

    @property
    def dead_letters(self) -> int:
        """How many events up to the checkpoint are dead letters."""

    def begin(self) -> Checkpoint:
        """Deals with what earlier attempts have left: dead letters, or a call that was cut short.

        :returns: the checkpoint at which this attempt begins
        """

    def at_work(self) -> AbstractContextManager[None]:
        """Around all of its replay."""

    def replay_to(self, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        """Replays up to a settled position, in transactions of its own.

        :raises Interrupted: the worker was asked to stop; a retry goes on
        """

    def finish(self, stopped: Callable[[], bool], progress: Callable[[Checkpoint], None]) -> None:
        """Comes to an end after the last head, before indexes are made.

        :raises Interrupted: the worker was asked to stop; a retry goes on
        """


def unit_of(
    step: Step,
    plan: Plan,
    checkpoint: Checkpoint,
    selection: OpenSelection | None,
    stopped: Callable[[], bool] | None = None,
) -> HandlerReplay | ExternalReplay:
    """The replay of the projector whose checkpoint this is.

    :param selection: the part of its rows that is replayed first; None: all are
    :param stopped: see :class:`ExternalReplay`
    :raises ProjectorError: it has only SQL, which cannot be used
    """
    projector = step.context.projector(checkpoint.projector)
    if issubclass(projector, ExternalProjector):
        return ExternalReplay(step.context, projector, checkpoint, step.connection, stopped)
    reads = foreign_reads_of(step, plan, projector)
    # A part is a choice among rows, which handlers tell.
    in_part = selection is not None and is_before(checkpoint.position, selection.settled)
    by_sql = _is_replayed_by_sql(step.context, projector, handlers_tell=in_part)
    return (SqlReplay if by_sql else HandlerReplay)(
        step.context, projector, checkpoint, step.connection, plan.already, selection, reads
    )


def shard_unit(step: Step, projector: type[Projector], checkpoint: Checkpoint, shard: Ownership) -> HandlerReplay:
    """The replay of one shard.

    :param checkpoint: the shard's own
    :raises ProjectorError: it has only SQL; whose an event is, handlers tell
    """
    _is_replayed_by_sql(step.context, projector, handlers_tell=True)
    return HandlerReplay(step.context, projector, checkpoint, step.connection, scope=shard)


def _is_replayed_by_sql(context: Context, projector: type[Projector], *, handlers_tell: bool) -> bool:
    """Whether a projector's SQL is used.

    :param handlers_tell: only handlers can tell which rows are replayed
    :raises ProjectorError: it is not, and there are no handlers
    """
    reason = ineligible_because(context, projector)
    if reason is None and not handlers_tell:
        return True
    if not projector.has_handlers():
        raise ProjectorError(
            f"{projector.name()} has no handlers, and its SQL cannot be used: {reason or 'none for this database'}"
        )
    return False
