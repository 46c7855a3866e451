"""Looks for a quiet moment again and again, in the triggerer; each look runs in a thread, so that no other trigger waits for it."""

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
"""What an event says besides the outcomes of the gate: the wait takes long and goes on, or a retry would not help."""


class LowTrafficTrigger(BaseTrigger):
    """Fires when the gate lets the swap pass, when it gives up, and once when it has waited for ``warn_after``.

    Its event has ``outcome``, ``message``, and ``arguments`` for the trigger that goes on waiting.

    :param spec_path: the spec file, read anew at each look
    :param ledger_run: the run's name in the ledger
    :param since: when the waiting began, ISO 8601
    :param quiet_since: since when it has been quiet, ISO 8601
    :param warned: whether it has fired already because it takes long
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
        """The arguments of the trigger that goes on waiting."""
        names = ("spec_path", "ledger_run", "since", "quiet_since", "warned")
        return {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Looks until there is something that a worker has to know."""
        waiting = Waiting(
            datetime.fromisoformat(self.since), datetime.fromisoformat(self.quiet_since) if self.quiet_since else None
        )
        told = ""
        while True:
            spec = await asyncio.to_thread(load_spec, Path(self.spec_path))
            try:
                verdict = await asyncio.to_thread(self._look, spec, waiting)
            except RebuildError as error:
                if not error.retryable:
                    yield self._event(ERROR, str(error), waiting)
                    return
                # A database that is away for a moment must not end a wait of hours.
                verdict = _without_answer(spec, waiting, str(error))
            waiting = verdict.waiting
            if verdict.opens is None or verdict.message != told:
                told = verdict.message
                self.log.info(told)
            if verdict.outcome is not Outcome.WAIT:
                yield self._event(verdict.outcome, told, waiting)
                return
            if not self.warned and datetime.now(UTC) - waiting.since >= spec.low_traffic.warn_after:
                self.warned = True
                yield self._event(LONG, told, waiting)
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
    """The verdict where the database gave no answer: wait, or give up."""
    late = datetime.now(UTC) - waiting.since >= spec.low_traffic.give_up_after
    return Verdict(Outcome.FAIL if late else Outcome.WAIT, why, Waiting(waiting.since))


def _pause(spec: RebuildSpec, verdict: Verdict) -> timedelta:
    """The time until the next look: short even far from the window, as somebody may say "swap now" at any time."""
    every = spec.low_traffic.look_every
    if verdict.opens is None:
        return every
    return max(timedelta(seconds=1), min(every, verdict.opens - datetime.now(UTC)))
