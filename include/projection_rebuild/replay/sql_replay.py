"""Replays one projector by its own SQL, range by range. If the SQL fails on an event, the handlers go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import sqlalchemy as sa

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.positions import Place, is_before, said
from projection_rebuild.replay.foreign_reads import ForeignReads
from projection_rebuild.replay.handler_replay import HandlerReplay
from projection_rebuild.replay.pace import Pace
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.replay.scope import ReplayScope
from projection_rebuild.replay.set_based import SetBasedReplay, SetError
from projection_rebuild.run.context import Context


class SqlReplay(HandlerReplay):
    """One projector whose SQL fills its green tables. From verification on, its handlers project, if it has any.

    The parameters are those of :class:`HandlerReplay`.
    """

    def __init__(
        self,
        context: Context,
        projector: type[Projector],
        checkpoint: Checkpoint,
        connection: sa.Connection,
        applied_above: Collection[int] | None = None,
        scope: ReplayScope | None = None,
        reads: ForeignReads | None = None,
    ) -> None:
        super().__init__(context, projector, checkpoint, connection, applied_above, scope, reads)
        self._sql: SetBasedReplay | None = SetBasedReplay(context, projector, frozenset(applied_above or ()))

    def replay_to(self, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        """Replays up to a high-water mark; by SQL, until the SQL fails on an event.

        :raises SetError: the SQL fails on an event, and the projector has no handlers
        """
        if self._sql is not None:
            while self._sql is not None and is_before(self.pipeline.reached, head):
                if verdict := throttle.look():
                    throttle.rest(verdict)
                if throttle.stopped():
                    raise self.pipeline.interrupted()
                self._replay_range(self._sql, head, throttle, progress)
            self.pipeline.rewind()
        super().replay_to(head, throttle, progress)

    def _replay_range(self, sql: SetBasedReplay, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        pipeline = self.pipeline
        pipeline.since = time.monotonic()
        bound, count = sql.next_range(pipeline.reached, head)
        try:
            with self._context.dialect.transaction(self._connection):
                moved = self._write_range(sql, count, bound, head)
                written = time.monotonic()
        except (SetError, WriteError) as error:
            if not self.projector.has_handlers():
                raise
            # The handlers name the event, or make it a dead letter.
            self._context.log(f"{error.message}; from {said(pipeline.reached)} on, its handlers do the work")
            self._sql = None
        else:
            throttle.committed(time.monotonic() - written)
            pipeline.committed(moved)
            progress(moved)

    def _write_range(self, sql: SetBasedReplay, count: int, bound: Place, head: Place) -> Checkpoint:
        context, connection, pipeline = self._context, self._connection, self.pipeline
        moved = pipeline.advance(count, bound, head, 0.0)
        context.dialect.allow_memory(connection, context.spec.replay.max_memory)
        began = time.monotonic()
        sql.run(connection, self.checkpoint.position, bound)
        pipeline.writer.check()
        sql.took(count, time.monotonic() - began)
        seconds = time.monotonic() - pipeline.since
        return context.ledger.over(connection, context.run_id).checkpoints.add_elapsed(moved, seconds)

    def put_rows(self, place: Place, among: Collection[int] | None = None) -> None:
        """See :meth:`HandlerReplay.put_rows`. For a projector without handlers, the SQL writes the rows.

        :raises SetError: the SQL fails on an event
        """
        super().put_rows(place, among)
        if self._sql is not None and not self.projector.has_handlers():
            self._sql.run(self._connection, self.checkpoint.position, place, among)
