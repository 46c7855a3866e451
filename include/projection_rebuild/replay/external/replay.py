"""Replaying a projector that is a program: it is called for a range of positions, and what it has done is checked and kept.

A call is noted in the ledger before it begins and until its end is known, so that one that was cut short is never taken for done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild.authoring import external
from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.errors import FencedOut, Interrupted, ProgramCutShort
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.positions import Place, earliest, is_before, said
from projection_rebuild.replay.external.call import Call, failed
from projection_rebuild.replay.external.recovery import begin_anew
from projection_rebuild.replay.pace import Pace
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step


class ExternalReplay:
    """One program on its green tables.

    :param connection: where the ledger is written
    :param stopped: asked within a call that could only be begun anew; None: what is asked between two calls is
    """

    dead_letters = 0

    def __init__(
        self,
        context: Context,
        projector: type[ExternalProjector],
        checkpoint: Checkpoint,
        connection: sa.Connection,
        stopped: Callable[[], bool] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.projector = projector
        self._context = context
        self._connection = connection
        self._stopped_within = stopped if projector.on_retry is OnRetry.RESTART else None
        self._call: Call | None = None

    def begin(self) -> Checkpoint:
        """Deals with a call that was cut short: see :func:`~projection_rebuild.replay.external.recovery.begin_anew`.

        :returns: the checkpoint at which the program goes on
        """
        self.checkpoint = begin_anew(Step(self._context, self._connection), self.projector, self.checkpoint)
        return self.checkpoint

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Around all of its replay: a program that is still at work then is ended."""
        try:
            yield
        finally:
            self.cut_short()

    def outstanding(self, position: Place) -> int:
        """How many of its events lie above its checkpoint and up to a place."""
        return self._stored(self.checkpoint.position, position)

    def _stored(self, after: Place, upto: Place) -> int:
        counts = self._context.store.counts(after, upto) if is_before(after, upto) else {}
        return sum(counts.get(each, 0) for each in self.projector.stored_types())

    def replay_to(self, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        """Calls the program up to a settled position, in batches if it wants it so.

        :param throttle: looked at between two calls
        :raises Interrupted: it was asked to stop; the program has been ended
        :raises ProgramFailed: its exit code is not 0, or it has not done what it was asked for
        :raises StepOrderError: an earlier call was cut short, and nobody has begun anew since
        """
        if self._context.ledger.over(self._connection, self._context.run_id).external_calls.is_open(self.projector.name()):
            if self.projector.on_retry is not OnRetry.REPEAT:
                raise ProgramCutShort(
                    f"the last call of {self.projector.name()} was cut short, so nobody knows what its tables hold; clear verify_counts and what "
                    "follows, where it begins anew (a rollback cannot go on: trigger the rebuild)"
                )
            self.begin()
        for upto in self._batches(head):
            if verdict := throttle.look():
                throttle.rest(verdict)
            if throttle.stopped():
                raise Interrupted(f"{self.projector.name()} was stopped at {said(self.checkpoint.position)}")
            if upto is not None and self.outstanding(upto):
                self.start(upto, head)
                self.finish(self._stopped_within or throttle.stopped, progress)
            else:
                self.pass_over(upto, head)
                progress(self.checkpoint)

    def _batches(self, head: Place) -> Iterator[Place]:
        while is_before(self.checkpoint.position, head):
            yield self._end_of_batch(head)
        # A head below it is that of a job that came back; what the program has done cannot be taken back.
        if self.checkpoint.head != head and self.checkpoint.position == head:
            yield head

    def _end_of_batch(self, head: Place) -> Place:
        """Where the next call ends. It is counted from the next event on, as positions may have gaps of any size."""
        size = self.projector.batch_positions
        following = head if size is None else self._context.store.place_of(1, self.checkpoint.position, head)
        return head if size is None or following is None else earliest([following + size - 1, head])

    def pass_over(self, upto: Place, head: Place) -> None:
        """Moves the checkpoint to a place below which nothing is left to do, perhaps in the caller's transaction."""
        self._advance(upto, head, 0, 0.0)

    def _advance(self, upto: Place, head: Place, events: int, seconds: float) -> None:
        self.checkpoint = self._context.ledger.over(self._connection, self._context.run_id).checkpoints.advance(
            self.checkpoint, position=upto, head=head, events=events, seconds=seconds
        )

    def start(self, upto: int, head: Place) -> None:
        """Starts a call up to a position.

        :raises ProgramFailed: it cannot be started in its directory; then nothing was cut short
        """
        context, connection, name = self._context, self._connection, self.projector.name()
        events = self.outstanding(upto)
        context.ledger.over(connection, context.run_id).external_calls.begin(name, self.checkpoint.position, upto)
        try:
            self._call = Call(context, self.projector, self.checkpoint.position, upto, head, events)
        except OSError as error:
            context.ledger.over(connection, context.run_id).external_calls.end(name)
            where = f"in its directory {self.projector.directory}" if self.projector.directory else "at all"
            raise failed(self.projector, upto, f"it cannot be started {where}: {error.strerror}") from None

    def finish(self, stopped: Callable[[], bool], progress: Callable[[Checkpoint], None]) -> None:
        """Waits for the call that was started, if there is one, and keeps what it has done.

        :raises Interrupted: see :meth:`replay_to`
        :raises ProgramFailed: see :meth:`replay_to`
        :raises FencedOut: another worker has taken over; the program has been ended
        """
        while self._call is not None and not self.is_done(external.LOOK_EVERY, progress):
            if stopped():
                self.cut_short()
                raise Interrupted(f"{self.projector.name()} was stopped, and its program ended; a retry goes on")

    def is_done(self, seconds: float, progress: Callable[[Checkpoint], None] = lambda _: None) -> bool:
        """Reads what the program says for some time; when it has come to its end, keeps what it has done."""
        call = self._call
        if call is None:
            return True
        try:
            self._still_ours()
            for reached in call.positions(seconds):
                self._reached(call, reached, progress)
            if not call.process.has_ended():
                return False
            call.check()
        except BaseException:
            self.cut_short()
            raise
        self._call = None
        rest = call.events - call.counted
        with self._context.dialect.transaction(self._connection):
            self._advance(call.upto, call.head, rest, time.monotonic() - call.since)
            self._context.ledger.over(self._connection, self._context.run_id).external_calls.end(self.projector.name())
        progress(self.checkpoint)
        return True

    def _reached(self, call: Call, position: int, progress: Callable[[Checkpoint], None]) -> None:
        if self.projector.on_retry is not OnRetry.REPEAT:
            # Just to be shown: only the whole call counts.
            now = self.checkpoint
            progress(Checkpoint(now.projector, position, call.head, now.events, now.seconds, now.token))
        elif is_before(self.checkpoint.position, position) and position < call.upto:
            events = self._stored(self.checkpoint.position, position)
            self._advance(position, call.head, events, time.monotonic() - call.since)
            call.counted, call.since = call.counted + events, time.monotonic()
            progress(self.checkpoint)

    def _still_ours(self) -> None:
        now = (
            self._context.ledger.over(self._connection, self._context.run_id)
            .checkpoints.of_projectors()
            .get(self.projector.name())
        )
        if now is None or now.token != self.checkpoint.token:
            raise FencedOut(
                f"another worker has taken {self.projector.name()} over, or its tables were cloned anew; its program is ended"
            )

    def cut_short(self) -> None:
        """Ends the program, if one is at work; the ledger keeps that its call had no end."""
        if self._call is not None:
            self._call.process.end()
            self._call = None
