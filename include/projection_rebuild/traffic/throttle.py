"""When a replay rests or waits: by the wish of a person, or for the sake of the databases. Looked at between its transactions.

What a person says stands in the run's notes (see :mod:`projection_rebuild.run.signals`), and counts from the next look on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.errors import Interrupted, SpecSqlError
from projection_rebuild.errors.drivers import trouble_of
from projection_rebuild.errors.trouble import MAY_PASS
from projection_rebuild.ledger import Note
from projection_rebuild.run.context import Context
from projection_rebuild.run.signals import PAUSE, THROTTLE
from projection_rebuild.spec.replay import ThrottleSection

NAP = 0.2
"""The longest sleep between two looks whether the worker is asked to stop."""


@dataclass(frozen=True)
class Verdict:
    """What a look has found against going on at full speed.

    :param waits: whether the work stands still until it is over; otherwise it rests for as long as it has worked since the look
        before
    """

    why: str
    waits: bool


class Throttle:
    """One worker's looks.

    :param worker: how its checkpoint is called
    :param connection: the worker's own, between two transactions
    :param stopped: whether the worker is asked to stop
    :param label: how it is called in the log, if otherwise
    """

    def __init__(
        self, context: Context, worker: str, connection: sa.Connection, stopped: Callable[[], bool], label: str = ""
    ) -> None:
        self._context = context
        self._worker = worker
        self._label = label or worker
        self._connection = connection
        self.stopped = stopped
        self._limits = context.spec.throttle
        self._latency = 0.0
        # When it last looked, and when it last was free to go on.
        self._looked, self._went_on = -math.inf, time.monotonic()
        # Whatever a worker that was killed while it waited has left.
        context.ledger.signals.clear_wait(connection, context.run_id, worker)

    def committed(self, latency: float) -> None:
        """Told what the last commit has taken, in seconds."""
        self._latency = latency

    def is_due(self) -> bool:
        """Whether it is time for a look; then the work is brought to a transaction's end, and :meth:`rest` called."""
        return time.monotonic() - self._looked >= self._limits.look_every.total_seconds()

    def look(self) -> Verdict | None:
        """Looks at what was said and at the databases; None: go on.

        :raises RebuildError: the SQL of ``throttle.replica_lag`` cannot be executed
        """
        self._looked = time.monotonic()
        notes = self._context.ledger.signals.all(self._connection, self._context.run_id)
        self._limits = limits(self._context, notes)
        if paused := notes.get(PAUSE):
            reason = paused.value.get("reason")
            return Verdict(f"paused by {paused.by or 'hand'}{f': {reason}' if reason else ''}", waits=True)
        found = list(self._exceeded())
        if not found:
            self._went_on = self._looked
            return None
        return Verdict("; ".join(each.why for each in found), waits=any(each.waits for each in found))

    def rest(self, verdict: Verdict) -> None:
        """Rests or waits as the verdict says, and says so.

        :raises Interrupted: the worker is asked to stop
        """
        began, log = time.monotonic(), self._context.log
        worked = began - self._went_on
        log(f"{self._label}: {'waiting' if verdict.waits else f'resting for {worked:.1f} s'}, {verdict.why}")
        now: Verdict | None = verdict
        try:
            while now is not None and (now.waits or time.monotonic() - began < worked):
                # A run that is given up meanwhile is not waited for.
                self._context.ledger.runs.get(self._connection, self._context.run_id)
                written = time.monotonic()
                self._context.ledger.signals.wait(self._connection, self._context.run_id, self._worker, now.why)
                # While nothing else is committed, this tells how long a commit takes.
                self._latency = time.monotonic() - written
                self._sleep(self._limits.look_every.total_seconds())
                now = self.look()
        finally:
            # On a lost connection the error that matters is the first one, and the next attempt does it.
            with suppress(sa.exc.SQLAlchemyError):
                self._context.ledger.signals.clear_wait(self._connection, self._context.run_id, self._worker)
        self._went_on = time.monotonic()
        log(f"{self._label}: going on after {self._went_on - began:.1f} s")

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.stopped():
                raise Interrupted(f"{self._label} was stopped while it rested; a retry goes on from its checkpoint")
            time.sleep(min(left, NAP))

    def _exceeded(self) -> Iterator[Verdict]:
        bounds = self._limits
        if bounds.max_active_sessions is not None:
            yield from _above("active sessions", self._sessions(), bounds.max_active_sessions, "")
        if bounds.max_replica_lag is not None:
            yield from _above(
                "replica lag",
                replica_lag(self._context, self._connection, bounds.replica_lag),
                bounds.max_replica_lag.total_seconds(),
                " s",
            )
        if bounds.max_commit_latency is not None:
            yield from _above("commit latency", self._latency, bounds.max_commit_latency.total_seconds(), " s")

    def _sessions(self) -> int | None:
        context = self._context
        found = context.dialect.active_sessions(self._connection)
        if context.one_database:
            return found
        with context.store.dialect.connect() as connection:
            return max(
                (each for each in (found, context.store.dialect.active_sessions(connection)) if each is not None), default=None
            )


def replica_lag(context: Context, connection: sa.Connection, asked_by: str | None) -> float | None:
    """Seconds by which replicas of the read models are behind; None where nobody knows.

    :param asked_by: the SQL of ``throttle.replica_lag``; None: the database tells by itself
    :raises SpecSqlError: that SQL cannot be executed
    """
    if asked_by is None:
        return context.dialect.replica_lag(connection)
    try:
        found = connection.execute(sa.text(asked_by)).scalar()
        return None if found is None else float(found)
    except (sa.exc.DBAPIError, ValueError, TypeError) as error:
        trouble = trouble_of(error)
        if trouble is not None and trouble.kind in MAY_PASS:
            raise
        why = "what it gives is no number" if trouble is None else trouble.describe()
        raise SpecSqlError(
            f"throttle.replica_lag cannot be asked: {why}; it must be SQL that gives a number of seconds"
        ) from None


def limits(context: Context, notes: dict[str, Note]) -> ThrottleSection:
    """The thresholds that count now: the spec's, with what was said about the run since."""
    said = notes.get(THROTTLE)
    if said is None:
        return context.spec.throttle
    return ThrottleSection.model_validate(context.spec.throttle.model_dump(mode="json") | said.value)


def _above(what: str, found: float | None, limit: float, unit: str) -> Iterator[Verdict]:
    if found is not None and found > limit:
        yield Verdict(f"{what} {found:g}{unit}, more than {limit:g}{unit}", waits=found > 2 * limit)
