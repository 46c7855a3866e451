"""Drives a pipeline to a place: reads, folds and commits by its budget, and rests when the throttle says so."""

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

    :param throttle: looked at between transactions; nothing is read meanwhile
    :param progress: told how far the replay is
    :param index_lookups: builds the indexes by which rows are looked up in green
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
        """Replays up to a settled position.

        :raises Interrupted: the worker was asked to stop; what was folded is committed
        :raises PoisonEvent: an event cannot be projected; everything before it is committed
        :raises WriteError: the database refuses rows; it names the event, and everything before it is committed
        """
        try:
            self._replay_whole(head)
        except PoisonEvent as error:
            # What its handler had done until it failed cannot be told from the rest; so all of it is done again, up to there.
            self._pipeline.rewind()
            self._replay_to(just_below(error.position), head)
            raise

    def _replay_whole(self, head: Place) -> None:
        while True:
            try:
                self._replay_to(head, head)
                # Where there was nothing to replay, the head may be another one all the same.
                self._commit(head)
                return
            except WriteError as error:
                self._replay_refused(error, head)

    def _replay_refused(self, error: WriteError, head: Place) -> None:
        """Replays what the database has refused in ever smaller transactions. All that it takes is committed.

        :raises WriteError: it names the event whose rows are refused
        """
        pipeline, budget = self._pipeline, self._pipeline.budget
        most, refused = budget.events, pipeline.reached
        try:
            while pipeline.pending > 1:
                budget.events = max(1, pipeline.pending // 2)
                pipeline.rewind()
                # Rows that were new are loaded again from here on.
                pipeline.fold.load_again()
                try:
                    self._replay_to(refused, head)
                except WriteError as smaller:
                    error, refused = smaller, pipeline.reached
                else:
                    # It had refused no more than the rows of several events together.
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
                # Between two readings: the server gives one up whose rows nobody takes for long.
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
                    # A reading that ends early costs its connection, so a look that finds nothing does not end it.
                    if (verdict := self._look_if_due()) or fold.wants_indexes:
                        break

    def _look_if_due(self) -> Verdict | None:
        if not self._throttle.is_due():
            return None
        # The tables of other projectors may have gone on since the last look.
        self._pipeline.fold.renew_reads()
        return self._throttle.look()

    def _commit_if_enough(self, place: Place, head: Place) -> None:
        pipeline = self._pipeline
        if pipeline.reached == place or pipeline.is_enough():
            self._commit(head)
            self._progress(pipeline.writer.checkpoint)
        else:
            # Just to be shown: only a commit counts, and a large batch takes a while.
            now = pipeline.writer.checkpoint
            self._progress(replace(now, position=pipeline.reached, head=head, events=now.events + pipeline.pending))

    def _commit(self, head: Place) -> None:
        self._pipeline.commit(head, self._throttle.committed)
