"""Runs a pipeline up to a place: reads, folds and commits by its budget, and rests when the throttle requires it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from projection_rebuild.errors import PoisonEvent
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.positions import Place, is_before, just_below
from projection_rebuild.replay.pace import Pace
from projection_rebuild.replay.pipeline.pipeline import Pipeline
from projection_rebuild.replay.row_tables import WriteError
from projection_rebuild.traffic.throttle import Verdict


class ReplayLoop:
    """One replay of one projector.

    :param throttle: called between transactions, while no read is open
    :param progress: called with the checkpoint, to show how far the replay is
    :param index_lookups: builds the indexes by which handlers look rows up in green
    """

    def __init__(
        self,
        pipeline: Pipeline,
        throttle: Pace,
        progress: Callable[[Checkpoint], None],
        index_lookups: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self._throttle = throttle
        self._progress = progress
        self._index_lookups = index_lookups

    def run(self, head: Place) -> None:
        """Replays up to a high-water mark.

        :raises Interrupted: the worker has to stop; the folded events are committed
        :raises PoisonEvent: an event cannot be projected; everything before it is committed
        :raises WriteError: the database refuses rows; the message names the event; everything before it is committed
        """
        try:
            self._replay_whole(head)
        except PoisonEvent as error:
            # The failed handler's changes cannot be separated from the others, so replay the events before it again.
            self._pipeline.rewind()
            self._replay_to(just_below(error.position), head)
            raise

    def _replay_whole(self, head: Place) -> None:
        while True:
            try:
                self._replay_to(head, head)
                # Without events the head may still have moved.
                self._commit(head)
                return
            except WriteError as error:
                self._replay_refused(error, head)

    def _replay_refused(self, error: WriteError, head: Place) -> None:
        """Replays refused events in ever smaller transactions, and commits those that the database accepts.

        :raises WriteError: names the event whose rows the database refuses
        """
        pipeline, budget = self._pipeline, self._pipeline.budget
        most, refused = budget.events, pipeline.reached
        try:
            while pipeline.pending > 1:
                budget.events = max(1, pipeline.pending // 2)
                pipeline.rewind()
                # From here on green is not empty, so the rows in memory are not all rows.
                pipeline.fold.load_again()
                try:
                    self._replay_to(refused, head)
                except WriteError as smaller:
                    error, refused = smaller, pipeline.reached
                else:
                    # The database has refused only the rows of several events together.
                    return
        finally:
            budget.events = most
        last = pipeline.fold.last
        raise error if last is None else error.of(last.type, last.position) from None

    def _replay_to(self, place: Place, head: Place) -> None:
        pipeline, fold, throttle = self._pipeline, self._pipeline.fold, self._throttle
        verdict: Verdict | None = None
        while is_before(pipeline.reached, place):
            if verdict := verdict or throttle.look():
                self._commit(head)
                throttle.rest(verdict)
                verdict = None
            if fold.wants_indexes:
                # While no read is open: a server closes a read from which the client fetches no rows for long.
                fold.wants_indexes = False
                self._index_lookups()
            pipeline.since = pipeline.since if pipeline.pending else time.monotonic()
            with closing(pipeline.pages_to(place)) as pages:
                for events, reached in pages:
                    if throttle.stopped():
                        self._commit(head)
                        raise pipeline.interrupted()
                    pipeline.errors.apply(events)
                    pipeline.reached, pipeline.pending = reached, pipeline.pending + len(events)
                    self._commit_if_enough(place, head)
                    # Ending a read early costs its connection, so only a verdict or missing indexes end it.
                    if (verdict := self._look_if_due()) or fold.wants_indexes:
                        break

    def _look_if_due(self) -> Verdict | None:
        if not self._throttle.is_due():
            return None
        # The tables of other projectors may have changed since the last look.
        self._pipeline.fold.renew_reads()
        return self._throttle.look()

    def _commit_if_enough(self, place: Place, head: Place) -> None:
        pipeline = self._pipeline
        if pipeline.reached == place or pipeline.is_enough():
            self._commit(head)
            self._progress(pipeline.writer.checkpoint)
        else:
            # Shows progress within a large batch; only a commit moves the checkpoint itself.
            last = pipeline.writer.checkpoint
            self._progress(replace(last, position=pipeline.reached, head=head, events=last.events + pipeline.pending))

    def _commit(self, head: Place) -> None:
        self._pipeline.commit(head, self._throttle.committed)
