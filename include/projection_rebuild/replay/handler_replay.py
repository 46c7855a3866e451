"""Replays one projector through its handlers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, closing
from functools import partial
from itertools import chain

import sqlalchemy as sa

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import Interrupted
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.positions import Place
from projection_rebuild.replay.dead_letters import retry_dead_letters
from projection_rebuild.replay.foreign_reads import ForeignReads, RowOwner
from projection_rebuild.replay.indexes import index_lookups
from projection_rebuild.replay.memory import collector_off
from projection_rebuild.replay.pace import Pace
from projection_rebuild.replay.pipeline.budget import Budget
from projection_rebuild.replay.pipeline.error_policy import KEPT_EVENTS, DeadLetterPolicy, ErrorPolicy, FailFast
from projection_rebuild.replay.pipeline.feed import EventFeed
from projection_rebuild.replay.pipeline.fold import Fold
from projection_rebuild.replay.pipeline.loop import ReplayLoop
from projection_rebuild.replay.pipeline.pipeline import Pipeline
from projection_rebuild.replay.pipeline.writer import BatchWriter
from projection_rebuild.replay.row_tables import GreenTables
from projection_rebuild.replay.scope import ReplayScope
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step
from projection_rebuild.spec.replay import OnError


class HandlerReplay:
    """One projector on its green tables: the rows in memory, and the checkpoint that they belong to.

    :param connection: loads and writes rows; the caller opens the transactions
    :param applied_above: positions above the checkpoint whose events green already holds; None: green began empty
    :param scope: the events and rows that it works on; None: all
    :param reads: the tables of other projectors that its handlers read; None: green tables of the same names
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
        scope = scope or ReplayScope()
        self.projector = projector
        self._context = context
        self._connection = connection
        self._reads = reads or ForeignReads(projector, GreenTables(context.dialect, connection, context.schema, str))
        tables = GreenTables(context.dialect, connection, context.schema, lambda name: context.table_set(name).green)
        tables.learn(projector.kinds())
        limits, keeps = context.spec.replay, context.spec.replay.on_error is OnError.DEAD_LETTER
        budget = Budget(limits, context.dialect.rows.rows_per_transaction, KEPT_EVENTS if keeps else None)
        fold = Fold(projector, tables, self._reads, scope, budget, context.log)
        recorded = context.ledger.over(connection, context.run_id).dead_letters.of_run(projector.name())
        errors: ErrorPolicy = FailFast(fold, recorded)
        if keeps:
            errors = DeadLetterPolicy(fold, recorded, projector.name(), limits.max_dead_letters, context.log)
        self.pipeline = Pipeline(
            projector.name(),
            EventFeed(context.store, projector, scope, frozenset(applied_above or ())),
            fold,
            BatchWriter(context, checkpoint, connection, tables),
            errors,
            budget,
            began_empty=applied_above is None,
        )

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint as this worker has last moved it."""
        return self.pipeline.writer.checkpoint

    @property
    def dead_letters(self) -> int:
        """The number of dead letters up to the checkpoint and among the events folded since."""
        return self.pipeline.errors.count

    @property
    def rows(self) -> RowBuffer:
        """The rows in memory, for projectors that read this one's tables."""
        return self.pipeline.fold.rows

    def attach(self, owners: Mapping[type, RowOwner]) -> None:
        """From here on, its handlers read rows of these classes from their owners' memory."""
        self._reads.attach(owners)

    # Alone ------------------------------------------------------------------------------------------------------------

    def begin(self) -> Checkpoint:
        """Retries the dead letters of earlier attempts.

        :returns: the checkpoint before the retries
        """
        first = self.checkpoint
        retry_dead_letters(Step(self._context, self._connection), self.projector, self.pipeline)
        return first

    def at_work(self) -> AbstractContextManager[None]:
        """The context in which the whole replay runs: without garbage collection, see :func:`collector_off`."""
        return collector_off()

    def replay_to(self, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        """Replays up to a high-water mark: see :meth:`ReplayLoop.run`."""
        index = partial(index_lookups, Step(self._context, self._connection), self.projector)
        ReplayLoop(self.pipeline, throttle, progress, index).run(head)

    def finish(self, stopped: Callable[[], bool], progress: Callable[[Checkpoint], None]) -> None:
        """Ends the replay after the last head; handlers leave nothing to do.

        :raises Interrupted: the worker has to stop before it builds indexes
        """
        if stopped():
            raise Interrupted(
                f"{self.projector.name()} was stopped before its indexes were built; a retry builds those that are missing"
            )

    # With other projectors, in the caller's transaction ---------------------------------------------------------------

    def fold_to(self, place: Place, among: Collection[int] | None = None) -> list[int] | None:
        """Folds the events up to a place, and writes nothing.

        :param among: only the events at these positions
        :returns: their positions; None: the replay had already reached the place
        """
        pages_of_positions = []
        with closing(self.pipeline.pages_to(place)) as pages:
            for events, _ in pages:
                wanted = [event for event in events if among is None or event.position in among]
                self.pipeline.errors.apply(wanted)
                pages_of_positions.append([event.position for event in wanted])
        return [*chain.from_iterable(pages_of_positions)] if pages_of_positions else None

    def delete_rows(self) -> None:
        """Deletes the rows that the folded events have removed."""
        self.pipeline.writer.delete(self.pipeline.fold.changes())

    def put_rows(self, place: Place, among: Collection[int] | None = None) -> None:
        """Updates and inserts the rows that the events folded up to a place have changed.

        :param among: as in :meth:`fold_to`
        """
        self.pipeline.writer.put(self.pipeline.fold.changes())
