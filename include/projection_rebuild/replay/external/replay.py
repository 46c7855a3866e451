"""Replays a projector that is a program: calls it for a range of positions, checks the call, moves the checkpoint.

The ledger records a call from before its start until its end is known. So an interrupted call never counts as done.
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

    :param connection: writes the ledger
    :param stopped: whether the worker has to stop, checked within a call that cannot be repeated; None: the throttle's
        ``stopped``, as between two calls
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
        """Recovers from an interrupted call: see :func:`~projection_rebuild.replay.external.recovery.begin_anew`.

        :returns: the checkpoint at which the program goes on
        """
        self.checkpoint = begin_anew(Step(self._context, self._connection), self.projector, self.checkpoint)
        return self.checkpoint

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """The context in which the whole replay runs: at its end, it ends a program that is still running."""
        try:
            yield
        finally:
            self.cut_short()

    def outstanding(self, position: Place) -> int:
        """The number of its events above the checkpoint and up to a place."""
        return self._stored(self.checkpoint.position, position)

    def _stored(self, after: Place, upto: Place) -> int:
        counts = self._context.store.counts(after, upto) if is_before(after, upto) else {}
        return sum(counts.get(event_type, 0) for event_type in self.projector.stored_types())

    def replay_to(self, head: Place, throttle: Pace, progress: Callable[[Checkpoint], None]) -> None:
        """Calls the program up to a high-water mark, in batches if the projector declares a size.

        :param throttle: called between two calls
        :param progress: called with the checkpoint, to show it
        :raises Interrupted: the worker had to stop; it has ended the program
        :raises ProgramFailed: its exit code is not 0, or it has not handled its range
        :raises StepOrderError: an earlier call was interrupted, and the program has to begin anew first
        """
        if self._context.ledger.over(self._connection, self._context.run_id).external_calls.is_open(self.projector.name()):
            if self.projector.on_retry is not OnRetry.REPEAT:
                raise ProgramCutShort(
                    f"the last call of {self.projector.name()} was cut short, so it is not known what its tables hold; clear verify_counts and "
                    "what follows, where it begins anew (a rollback cannot go on: trigger the rebuild)"
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
        # A job that came back may lower the head below the checkpoint; the program's work cannot be undone, so skip it.
        if self.checkpoint.head != head and self.checkpoint.position == head:
            yield head

    def _end_of_batch(self, head: Place) -> Place:
        """The end of the next call's range, counted from the next event on: positions may have gaps of any size."""
        size = self.projector.batch_positions
        following = head if size is None else self._context.store.place_of(1, self.checkpoint.position, head)
        return head if size is None or following is None else earliest([following + size - 1, head])

    def pass_over(self, upto: Place, head: Place) -> None:
        """Moves the checkpoint to a place up to which no events remain, perhaps in the caller's transaction."""
        self._advance(upto, head, 0, 0.0)

    def _advance(self, upto: Place, head: Place, events: int, seconds: float) -> None:
        self.checkpoint = self._context.ledger.over(self._connection, self._context.run_id).checkpoints.advance(
            self.checkpoint, position=upto, head=head, events=events, seconds=seconds
        )

    def start(self, upto: int, head: Place) -> None:
        """Starts a call up to a position.

        :raises ProgramFailed: the program cannot be started in its directory; the ledger keeps no open call then
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
        """Waits for the running call, if any, and moves the checkpoint.

        :raises Interrupted: see :meth:`replay_to`
        :raises ProgramFailed: see :meth:`replay_to`
        :raises FencedOut: another worker has taken over; this one has ended the program
        """
        while self._call is not None and not self.is_done(external.LOOK_EVERY, progress):
            if stopped():
                self.cut_short()
                raise Interrupted(f"{self.projector.name()} was stopped, and its program ended; a retry goes on")

    def is_done(self, seconds: float, progress: Callable[[Checkpoint], None] = lambda _: None) -> bool:
        """Reads the program's output for some time; if the program has ended, checks the call and moves the checkpoint.

        :param seconds: the time
        :returns: whether no call is running any more
        :raises ProgramFailed: see :meth:`replay_to`
        :raises FencedOut: see :meth:`finish`
        """
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
            # Shows progress only: the checkpoint moves when the whole call is done.
            last = self.checkpoint
            progress(Checkpoint(last.projector, position, call.head, last.events, last.seconds, last.token))
        elif is_before(self.checkpoint.position, position) and position < call.upto:
            events = self._stored(self.checkpoint.position, position)
            self._advance(position, call.head, events, time.monotonic() - call.since)
            call.counted, call.since = call.counted + events, time.monotonic()
            progress(self.checkpoint)

    def _still_ours(self) -> None:
        """Checks that this worker still has the projector's checkpoint.

        :raises FencedOut: it has not
        """
        current = (
            self._context.ledger.over(self._connection, self._context.run_id)
            .checkpoints.of_projectors()
            .get(self.projector.name())
        )
        if current is None or current.token != self.checkpoint.token:
            raise FencedOut(
                f"another worker has taken {self.projector.name()} over, or its tables were cloned anew; its program is ended"
            )

    def cut_short(self) -> None:
        """Ends the program, if it is running; in the ledger the call stays open, so it counts as interrupted."""
        if self._call is not None:
            self._call.process.end()
            self._call = None
