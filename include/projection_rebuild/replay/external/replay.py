"""Replaying a projector that is a program: it is called for a range of positions, and what it has done is checked and kept.

A call is noted in the ledger before it begins and until its end is known, so that one that was cut short is never taken for done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import quote, urlencode

import orjson
import sqlalchemy as sa

from projection_rebuild.authoring import external
from projection_rebuild.authoring.external import ExternalProjector, OnRetry
from projection_rebuild.errors import FencedOut, Interrupted, ProgramFailed, StepOrderError
from projection_rebuild.ledger import Checkpoint, RunState
from projection_rebuild.model.names import GREEN_SUFFIX
from projection_rebuild.model.positions import Place, earliest, is_before, said
from projection_rebuild.replay.external.process import Program
from projection_rebuild.run.context import Context
from projection_rebuild.shadow.clone import remake, wait_for_programs

VARIABLE = "PROJECTION_REBUILD_"
SECRET = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
"""What a program does not get of our environment."""


class ExternalReplay:
    """One program on its green tables.

    :param connection: where the ledger is written
    """

    dead_letters = 0

    def __init__(
        self, context: Context, projector: type[ExternalProjector], checkpoint: Checkpoint, connection: sa.Connection
    ) -> None:
        self.checkpoint = checkpoint
        self.projector = projector
        self._context = context
        self._connection = connection
        self._call: _Call | None = None

    def begin_anew(self) -> None:
        """Deals with a call that was cut short.

        What it was executing in the database has come to its end afterwards, so nothing of it appears later.
        """
        context, connection = self._context, self._connection
        if not context.ledger.external_calls.is_open(connection, context.run_id, self.projector.name()):
            return
        self._keep_others_out()
        if self.projector.on_retry is OnRetry.REPEAT:
            context.log(f"{self.projector.name()}: its last call was cut short; going on at {said(self.checkpoint.position)}")
            return
        context.log(f"{self.projector.name()}: its last call was cut short; beginning anew with empty tables")
        run = context.ledger.runs.get(connection, context.run_id)
        plan = context.plan_of(run)
        remake(context, connection, [context.table_set(table, plan) for table in self.projector.tables()])
        with context.dialect.transaction(connection):
            if run.state.is_verified:
                # What was verified is gone.
                context.ledger.runs.move(connection, context.run_id, RunState.CLONED)
            context.ledger.checkpoints.reset(connection, context.run_id, self.projector.name())
            context.ledger.external_calls.end(connection, context.run_id, self.projector.name())
        self._read_checkpoint()

    def _keep_others_out(self) -> None:
        """Another worker may live, whatever its scheduler believes; without its checkpoint it ends its program."""
        context, connection = self._context, self._connection
        context.ledger.checkpoints.fence(connection, context.run_id, self.projector.name())
        self._read_checkpoint()
        wait_for_programs(context, connection, [context.table_set(table) for table in self.projector.tables()])

    def _read_checkpoint(self) -> None:
        self.checkpoint = self._context.ledger.checkpoints.of_projectors(self._connection, self._context.run_id)[
            self.projector.name()
        ]

    def outstanding(self, position: Place) -> int:
        """How many of its events lie above its checkpoint and up to a place."""
        return self._stored(self.checkpoint.position, position)

    def _stored(self, after: Place, upto: Place) -> int:
        counts = self._context.store.counts(after, upto) if is_before(after, upto) else {}
        return sum(counts.get(each, 0) for each in self.projector.stored_types())

    def replay_to(
        self,
        head: Place,
        stopped: Callable[[], bool],
        progress: Callable[[Checkpoint], None],
        rest: Callable[[], None],
        cut: Callable[[], bool] | None = None,
    ) -> None:
        """Calls the program up to a settled position, in batches if it wants it so.

        :param stopped: asked between two calls
        :param rest: called between two calls
        :param cut: asked within a call; None: ``stopped`` is
        :raises Interrupted: it was asked to stop; the program has been ended
        :raises ProgramFailed: its exit code is not 0, or it has not done what it was asked for
        :raises StepOrderError: an earlier call was cut short, and nobody has begun anew since
        """
        if self._context.ledger.external_calls.is_open(self._connection, self._context.run_id, self.projector.name()):
            if self.projector.on_retry is not OnRetry.REPEAT:
                raise StepOrderError(
                    f"the last call of {self.projector.name()} was cut short, so nobody knows what its tables hold; clear verify_counts and what "
                    "follows, where it begins anew (a rollback cannot go on: trigger the rebuild)"
                )
            self.begin_anew()
        for upto in self._batches(head):
            rest()
            if stopped():
                raise Interrupted(f"{self.projector.name()} was stopped at {said(self.checkpoint.position)}")
            if upto is not None and self.outstanding(upto):
                self.start(upto, head)
                self.finish(cut or stopped, progress)
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
        self.checkpoint = self._context.ledger.checkpoints.advance(
            self._connection, self._context.run_id, self.checkpoint, position=upto, head=head, events=events, seconds=seconds
        )

    def start(self, upto: int, head: Place) -> None:
        """Starts a call up to a position.

        :raises ProgramFailed: it cannot be started in its directory; then nothing was cut short
        """
        context, connection, name = self._context, self._connection, self.projector.name()
        events = self.outstanding(upto)
        context.ledger.external_calls.begin(connection, context.run_id, name, self.checkpoint.position, upto)
        try:
            self._call = _Call(context, self.projector, self.checkpoint.position, upto, head, events)
        except OSError as error:
            context.ledger.external_calls.end(connection, context.run_id, name)
            where = f"in its directory {self.projector.directory}" if self.projector.directory else "at all"
            raise _failed(self.projector, upto, f"it cannot be started {where}: {error.strerror}") from None

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
            if not call.program.has_ended():
                return False
            call.check()
        except BaseException:
            self.cut_short()
            raise
        self._call = None
        rest = call.events - call.counted
        with self._context.dialect.transaction(self._connection):
            self._advance(call.upto, call.head, rest, time.monotonic() - call.since)
            self._context.ledger.external_calls.end(self._connection, self._context.run_id, self.projector.name())
        progress(self.checkpoint)
        return True

    def _reached(self, call: _Call, position: int, progress: Callable[[Checkpoint], None]) -> None:
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
        now = self._context.ledger.checkpoints.of_projectors(self._connection, self._context.run_id).get(self.projector.name())
        if now is None or now.token != self.checkpoint.token:
            raise FencedOut(
                f"another worker has taken {self.projector.name()} over, or its tables were cloned anew; its program is ended"
            )

    def cut_short(self) -> None:
        """Ends the program, if one is at work; the ledger keeps that its call had no end."""
        if self._call is not None:
            self._call.program.end()
            self._call = None


class _Call:
    """One call at work.

    :param events: how many events it has to handle
    """

    def __init__(
        self, context: Context, projector: type[ExternalProjector], after: Place, upto: int, head: Place, events: int
    ) -> None:
        self.upto, self.head, self.events = upto, head, events
        self.counted, self.since = 0, time.monotonic()
        self._context = context
        self._projector = projector
        self._said: int | None = None
        self._at: Place = after
        values = _values(context, projector, after, upto)
        self.program = Program(
            [_filled(word, values) for word in projector.command],
            patience=external.PATIENCE,
            directory=projector.directory,
            environment=_environment(context, projector, values),
        )

    def positions(self, seconds: float) -> Iterator[int]:
        """The last position that the program has reported within this time, if it has reported any."""
        deadline, reached = time.monotonic() + seconds, None
        while (left := deadline - time.monotonic()) > 0 and not self.program.has_ended():
            line = self.program.line(min(left, 0.05))
            if line is not None and (found := self._understood(line)) is not None:
                reached = found
        if reached is not None:
            yield reached

    def _understood(self, line: str) -> int | None:
        """``position N``: all events up to N are in the tables for good. ``events N``: so many has this call handled in all."""
        word, _, number = line.strip().partition(" ")
        if word not in ("position", "events") or not number.removeprefix("-").isdecimal():
            if self._projector.show_output:
                self._context.log(f"{self._projector.name()} says: {line}")
            return None
        if word == "events":
            self._said = int(number)
            return None
        if is_before(int(number), self._at) or int(number) > self.upto:
            raise _failed(self._projector, self.upto, f"it reports position {number}, which is not within what it was asked for")
        self._at = int(number)
        return int(number)

    def check(self) -> None:
        """Whether the program, which has ended, has done what it was asked for."""
        code = self.program.end()
        if code:
            what = "its command cannot be started" if code == 127 else f"it ended with exit code {code}"
            raise _failed(self._projector, self.upto, what)
        if self._said is not None and self._said != self.events:
            raise _failed(
                self._projector, self.upto, f"it has handled {self._said:,} events, and the store holds {self.events:,}"
            )


def _failed(projector: type[ExternalProjector], upto: int, what: str) -> ProgramFailed:
    return ProgramFailed(
        f"{projector.name()}, called up to position {upto:,}: {what}. Blue is live and untouched. Look into the program's own log "
        "(or set show_output), and retry"
    )


def _values(context: Context, projector: type[ExternalProjector], after: Place, upto: int) -> dict[str, str]:
    # Nothing lies below the first event, so a program that knows no beginning may take the number before it for one.
    first = context.store.first() if after is None else after + 1
    begin = upto if first is None else first
    return {
        "from": str(begin),
        "after": str(begin - 1),
        "to": str(upto),
        "suffix": GREEN_SUFFIX,
        "schema": context.schema or "",
        "run": context.run_id,
        "projector": projector.name(),
    }


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _environment(context: Context, projector: type[ExternalProjector], values: dict[str, str]) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(SECRET)}
    given = {VARIABLE + name.upper(): value for name, value in values.items()}
    given[VARIABLE + "TABLES"] = orjson.dumps({table: context.table_set(table).green for table in projector.tables()}).decode()
    given[VARIABLE + "EVENT_TYPES"] = orjson.dumps(projector.stored_types()).decode()
    if projector.connections:
        for name, engine in (("READ_MODELS_URL", context.dialect.engine), ("EVENT_STORE_URL", context.store.dialect.engine)):
            given[VARIABLE + name] = _as_text(engine.url)
    return ours | dict(projector.environment) | given


def _as_text(url: sa.URL) -> str:
    """A URL as other languages' drivers read it: every special character as ``%XX``, blanks too, and the query with all of its settings."""
    word = partial(quote, safe="")
    login = word(url.username or "") + (f":{word(str(url.password))}" if url.password is not None else "")
    host = f"[{url.host}]" if ":" in (url.host or "") else (url.host or "")
    text = f"{url.get_backend_name()}://{login}{'@' if login else ''}{host}{f':{url.port}' if url.port else ''}"
    query = urlencode(url.query, doseq=True, quote_via=quote, safe="")
    return text + (f"/{quote(url.database, safe='/')}" if url.database else "") + (f"?{query}" if query else "")
