"""Folds events in memory: loads the rows that the buffer lacks, and then calls the handlers, which change rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import HandlerError, PartError, RowError
from projection_rebuild.errors.boundary import trouble_at_event, word_for
from projection_rebuild.model.positions import Place, said
from projection_rebuild.replay.foreign_reads import ForeignReads, Projects
from projection_rebuild.replay.pipeline.budget import Budget
from projection_rebuild.replay.prefetch import Prefetcher
from projection_rebuild.replay.row_tables import GreenTables
from projection_rebuild.replay.scope import ReplayScope
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Changes


class Fold:
    """One projector's rows in memory, and the handlers that change them.

    :param tables: loads rows
    :param reads: the rows of other projectors that the handlers read
    :param scope: the rows that the handlers may touch
    :param log: gets a line when rows no longer fit in memory
    :ivar rows: the rows; another buffer after each :meth:`begin`
    :ivar last: the last folded event; None: no event was folded
    :ivar wants_indexes: from here on the fold looks rows up in green, which may lack the indexes for that
    """

    rows: RowBuffer

    def __init__(
        self,
        projector: type[Projector],
        tables: GreenTables,
        reads: ForeignReads,
        scope: ReplayScope,
        budget: Budget,
        log: Callable[[str], None],
    ) -> None:
        self.last: Event | None = None
        self.wants_indexes = False
        self.scope = scope
        self._projector = projector
        self._tables = tables
        self._reads = reads
        self._budget = budget
        self._log = log
        self._instance: Projects = reads.of(scope.of(projector()))
        self._prefetcher = Prefetcher(self._instance, reads)

    def begin(self, *, complete: bool) -> None:
        """Begins with an empty buffer.

        :param complete: green is known to be empty, so no row has to be loaded
        """
        self.rows = RowBuffer(self._tables, complete=complete, classes=self._projector.owns, misses=self.scope.misses)
        self.scope.begin()

    def renew_reads(self) -> None:
        """Forgets the rows of other projectors, whose tables may have changed since."""
        self._reads.renew()

    def apply(self, stored: Sequence[Event]) -> None:
        """Applies events to the rows in memory; uses the database only to load rows.

        :param stored: the events as the store holds them
        :raises PoisonEvent: an event cannot be projected; the rows in memory are unusable
        """
        self.last = stored[-1] if stored else self.last
        events = self._projector.upcasters.bring_up_to_date(stored)
        if self._projector.reads or not self.rows.is_complete:
            self._prefetcher.load(events, self.rows)
        project, rows, end_event = self._instance.project, self.rows, self.rows.end_event
        for event in events:
            try:
                project(event, rows)
                end_event()
            except PartError:
                raise
            except Exception as error:
                name = self._projector.name()
                # A row could not be loaded, or the machine failed: not the handler's fault, and a retry can help.
                if trouble := trouble_at_event(error, name, event.type, event.position):
                    raise trouble from None
                # Without the chain: an exception's text may quote the payload.
                also = self.scope.hint if isinstance(error, RowError) else ""
                raise HandlerError(name, event.type, event.position, word_for(error), also) from None

    def undo(self) -> None:
        """Undoes all changes since the last commit."""
        self.rows.undo()
        self.scope.undo()

    def changes(self) -> list[Changes]:
        """The changes to write, in the order of the projector's tables."""
        order = self._projector.tables()
        return sorted(self.rows.changes(), key=lambda change: order.index(change.kind.table))

    def load_again(self) -> None:
        """From here on, the fold looks up rows in green that were in memory before."""
        self.wants_indexes = self.scope.makes_indexes

    def committed(self, position: Place) -> None:
        """Takes note that the changes are committed up to a position; discards rows that take too much memory."""
        self.rows.settle()
        self.scope.begin()
        if not self._budget.memory_is_full(len(self.rows)):
            return
        if self.rows.is_complete:
            self._log(
                f"{self._projector.name()}: its rows take more than {self._budget.describe_memory()} at {said(position)}; from here on those "
                "that events touch are loaded again, which takes several times as long. A higher limit or more `replay.shards` would avoid this"
            )
            self.load_again()
        self.rows.forget()
