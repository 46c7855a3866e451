"""What a replay does in memory: handlers change rows in a buffer, whose missing rows are loaded beforehand."""

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

    :param tables: where rows are loaded from
    :param reads: what the handlers look at beside their own rows
    :param scope: which rows they may touch
    :param log: where it says that rows have to be loaded again
    :ivar rows: the rows; another buffer after each :meth:`begin`
    :ivar last: the event that was folded last; None: none was
    :ivar wants_indexes: rows are looked up in green from here on, and it may lack the indexes for that
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
        """Begins with a buffer that holds nothing.

        :param complete: green is known to be empty, so that nothing has to be loaded
        """
        self.rows = RowBuffer(self._tables, complete=complete, classes=self._projector.owns, misses=self.scope.misses)
        self.scope.begin()

    def renew_reads(self) -> None:
        """Forgets what others' tables held: they may have gone on since."""
        self._reads.renew()

    def apply(self, stored: Sequence[Event]) -> None:
        """Applies events to the rows in memory; touches the database only to load rows.

        :raises PoisonEvent: an event cannot be projected; the rows in memory are of no use any more
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
                # A row could not be loaded, or the machine failed: that is no fault of the handler's, and a retry can help.
                if trouble := trouble_at_event(error, name, event.type, event.position):
                    raise trouble from None
                # Without the chain: an exception's text may quote the payload.
                also = self.scope.hint if isinstance(error, RowError) else ""
                raise HandlerError(name, event.type, event.position, word_for(error), also) from None

    def undo(self) -> None:
        """Takes back whatever was done since the last commit."""
        self.rows.undo()
        self.scope.undo()

    def changes(self) -> list[Changes]:
        """What has to be written, in the order of the owned tables."""
        order = self._projector.tables()
        return sorted(self.rows.changes(), key=lambda change: order.index(change.kind.table))

    def load_again(self) -> None:
        """Rows that were in memory are looked up in green from here on."""
        self.wants_indexes = self.scope.makes_indexes

    def committed(self, position: Place) -> None:
        """The changes are committed up to a position. Rows that take too much memory are forgotten."""
        self.rows.settle()
        self.scope.begin()
        if not self._budget.memory_is_full(len(self.rows)):
            return
        if self.rows.is_complete:
            self._log(
                f"{self._projector.name()}: its rows take more than {self._budget.describe_memory()} at {said(position)}; from here on those "
                "that events touch are loaded again, which takes several times as long. A higher limit or more `replay.shards` would keep them"
            )
            self.load_again()
        self.rows.forget()
