"""Slows down or stops a replay between two transactions: an operator has paused it, or the databases are over a limit.

Operators' signals (see :mod:`projection_rebuild.run.signals`) take effect at the next look.
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
from projection_rebuild.run.step import Step
from projection_rebuild.spec.replay import ThrottleSection

NAP = 0.2
"""The longest sleep, in seconds, between two checks whether the worker must stop."""


@dataclass(frozen=True)
class Verdict:
    """Why a replay has to slow down or wait.

    :param why: the reason, for the log and the page
    :param waits: whether the replay waits until the reason is gone; otherwise it rests for as long as it has worked
        since the look before
    """

    why: str
    waits: bool


class Throttle:
    """The throttle of one worker's replay.

    :param worker: the name of the worker's checkpoint
    :param connection: the worker's own connection, between two transactions
    :param stopped: returns whether the worker must stop
    :param label: the worker's name in the log; empty: ``worker``
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
        # The last look, and the last moment at which the replay was free to go on.
        self._looked, self._went_on = -math.inf, time.monotonic()
        # A worker that was killed while it waited has left its wait in the ledger.
        context.ledger.over(connection, context.run_id).signals.clear_wait(worker)

    def committed(self, latency: float) -> None:
        """Records the latency of the last commit, in seconds."""
        self._latency = latency

    def is_due(self) -> bool:
        """Whether it is time for a look; on a verdict the caller ends its transaction and calls :meth:`rest`."""
        return time.monotonic() - self._looked >= self._limits.look_every.total_seconds()

    def look(self) -> Verdict | None:
        """Reads the operators' signals and measures the databases; None: the replay may go on.

        :raises RebuildError: the SQL of ``throttle.replica_lag`` cannot be executed
        """
        self._looked = time.monotonic()
        signals = self._context.ledger.over(self._connection, self._context.run_id).signals.all()
        self._limits = limits(self._context, signals)
        if pause := signals.get(PAUSE):
            reason = pause.value.get("reason")
            return Verdict(f"paused by {pause.by or 'hand'}{f': {reason}' if reason else ''}", waits=True)
        verdicts = list(self._exceeded())
        if not verdicts:
            self._went_on = self._looked
            return None
        return Verdict("; ".join(verdict.why for verdict in verdicts), waits=any(verdict.waits for verdict in verdicts))

    def rest(self, verdict: Verdict) -> None:
        """Rests or waits as the verdict says, and logs it.

        :raises Interrupted: the worker must stop
        """
        began, log = time.monotonic(), self._context.log
        worked = began - self._went_on
        log(f"{self._label}: {'waiting' if verdict.waits else f'resting for {worked:.1f} s'}, {verdict.why}")
        now: Verdict | None = verdict
        try:
            while now is not None and (now.waits or time.monotonic() - began < worked):
                # It raises if an operator has abandoned the run meanwhile.
                self._context.ledger.over(self._connection, self._context.run_id).runs.get()
                written = time.monotonic()
                self._context.ledger.over(self._connection, self._context.run_id).signals.wait(self._worker, now.why)
                # The replay commits nothing while it waits, so this write measures how long a commit takes.
                self._latency = time.monotonic() - written
                self._sleep(self._limits.look_every.total_seconds())
                now = self.look()
        finally:
            # On a lost connection the first error matters, and the next attempt clears the wait.
            with suppress(sa.exc.SQLAlchemyError):
                self._context.ledger.over(self._connection, self._context.run_id).signals.clear_wait(self._worker)
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
                replica_lag(Step(self._context, self._connection), bounds.replica_lag),
                bounds.max_replica_lag.total_seconds(),
                " s",
            )
        if bounds.max_commit_latency is not None:
            yield from _above("commit latency", self._latency, bounds.max_commit_latency.total_seconds(), " s")

    def _sessions(self) -> int | None:
        context = self._context
        sessions = context.dialect.traffic.active_sessions(self._connection)
        if context.one_database:
            return sessions
        with context.store.dialect.connect() as connection:
            return max(
                (count for count in (sessions, context.store.dialect.traffic.active_sessions(connection)) if count is not None),
                default=None,
            )


def replica_lag(step: Step, lag_sql: str | None) -> float | None:
    """Seconds by which replicas of the read models are behind; None: the database does not report it.

    :param lag_sql: the SQL of ``throttle.replica_lag``; None: the dialect's own query
    :raises SpecSqlError: the SQL cannot be executed, or returns no number
    """
    if lag_sql is None:
        return step.dialect.traffic.replica_lag(step.connection)
    try:
        lag = step.connection.execute(sa.text(lag_sql)).scalar()
        return None if lag is None else float(lag)
    except (sa.exc.DBAPIError, ValueError, TypeError) as error:
        trouble = trouble_of(error)
        if trouble is not None and trouble.kind in MAY_PASS:
            raise
        why = "its result is no number" if trouble is None else trouble.describe()
        raise SpecSqlError(
            f"throttle.replica_lag cannot be asked: {why}; it must be SQL that gives a number of seconds"
        ) from None


def limits(context: Context, signals: dict[str, Note]) -> ThrottleSection:
    """The thresholds in force: the spec's, changed by operators' signals to the run."""
    given = signals.get(THROTTLE)
    if given is None:
        return context.spec.throttle
    return ThrottleSection.model_validate(context.spec.throttle.model_dump(mode="json") | given.value)


def _above(name: str, value: float | None, limit: float, unit: str) -> Iterator[Verdict]:
    if value is not None and value > limit:
        yield Verdict(f"{name} {value:g}{unit}, more than {limit:g}{unit}", waits=value > 2 * limit)
