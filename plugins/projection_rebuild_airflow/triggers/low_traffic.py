"""Polls for a quiet moment in the triggerer. Each look runs in a thread, so that it does not block other triggers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from projection_rebuild.api import Outcome, RebuildError, RebuildSpec, Verdict, Waiting, load_spec
from projection_rebuild_airflow.runs import open_spec

LONG, ERROR = "long", "error"
"""Outcomes besides those of the gate: the wait takes long and continues; or an error that no retry repairs."""


class LowTrafficTrigger(BaseTrigger):
    """Fires when the gate lets the swap pass, when the gate gives up, and once when the wait exceeds ``warn_after``.

    Its event has ``outcome``, ``message``, and ``arguments`` for the trigger that continues the wait.

    :param spec_path: the spec file; it is read again at each look
    :param ledger_run: the run's name in the ledger
    :param since: when the wait began, ISO 8601
    :param quiet_since: since when the application has been quiet, ISO 8601; None: it is not
    :param warned: whether it has already fired because of a long wait
    """

    def __init__(
        self, *, spec_path: str, ledger_run: str, since: str, quiet_since: str | None = None, warned: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.spec_path = spec_path
        self.ledger_run = ledger_run
        self.since = since
        self.quiet_since = quiet_since
        self.warned = warned

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, as Airflow stores them."""
        return f"{type(self).__module__}.{type(self).__qualname__}", self.arguments()

    def arguments(self) -> dict[str, Any]:
        """The arguments of the trigger that continues the wait."""
        names = ("spec_path", "ledger_run", "since", "quiet_since", "warned")
        return {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks until a worker has to act, and yields one event for it."""
        waiting = Waiting(
            datetime.fromisoformat(self.since), datetime.fromisoformat(self.quiet_since) if self.quiet_since else None
        )
        logged = ""
        while True:
            spec = await asyncio.to_thread(load_spec, Path(self.spec_path))
            try:
                verdict = await asyncio.to_thread(self._look, spec, waiting)
            except RebuildError as error:
                if not error.retryable:
                    yield self._event(ERROR, str(error), waiting)
                    return
                # A short outage of the database must not end a wait of hours.
                verdict = _without_answer(spec, waiting, str(error))
            waiting = verdict.waiting
            if verdict.opens is None or verdict.message != logged:
                logged = verdict.message
                self.log.info(logged)
            if verdict.outcome is not Outcome.WAIT:
                yield self._event(verdict.outcome, logged, waiting)
                return
            if not self.warned and datetime.now(UTC) - waiting.since >= spec.low_traffic.warn_after:
                self.warned = True
                yield self._event(LONG, logged, waiting)
                return
            await asyncio.sleep(_pause(spec, verdict).total_seconds())

    def _look(self, spec: RebuildSpec, waiting: Waiting) -> Verdict:
        with open_spec(spec, self.ledger_run) as rebuild:
            return rebuild.look_at_traffic(waiting)

    def _event(self, outcome: str, message: str, waiting: Waiting) -> TriggerEvent:
        self.quiet_since = waiting.quiet_since.isoformat() if waiting.quiet_since else None
        payload = {"outcome": str(outcome), "message": message, "arguments": self.arguments()}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]


def _without_answer(spec: RebuildSpec, waiting: Waiting, why: str) -> Verdict:
    """The verdict when the database gave no answer: wait, or give up.

    :param why: the error's message
    """
    late = datetime.now(UTC) - waiting.since >= spec.low_traffic.give_up_after
    return Verdict(Outcome.FAIL if late else Outcome.WAIT, why, Waiting(waiting.since))


def _pause(spec: RebuildSpec, verdict: Verdict) -> timedelta:
    """The time until the next look.

    It is short even far from the window, because a user may send "swap now" at any time.
    """
    every = spec.low_traffic.look_every
    if verdict.opens is None:
        return every
    return max(timedelta(seconds=1), min(every, verdict.opens - datetime.now(UTC)))
