"""Delays the swap until a quiet moment. A worker takes the first look, the triggerer all later ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from projection_rebuild.api import Outcome, Waiting
from projection_rebuild_airflow.operators.rebuild import airflow_errors
from projection_rebuild_airflow.runs import ledger_run, open_rebuild
from projection_rebuild_airflow.triggers.low_traffic import ERROR, LONG, LowTrafficTrigger


class LowTrafficSensor(BaseSensorOperator):
    """Passes when the application is quiet within the spec's low-traffic window, or at once on "swap now".

    :param spec_path: the spec file
    :param on_long_wait: the sensor calls it once the wait is longer than ``low_traffic.warn_after``, with the task's
        context and the reason for the wait
    """

    template_fields = ("spec_path",)

    def __init__(self, *, spec_path: str, on_long_wait: Callable[[Context, str], None] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec_path = spec_path
        self.on_long_wait = on_long_wait

    def execute(self, context: Context) -> None:
        """Takes the first look; defers to the trigger if the swap has to wait."""
        now = datetime.now(UTC)
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            verdict = rebuild.look_at_traffic(Waiting(now))
        self.log.info(verdict.message)
        if verdict.outcome is Outcome.WAIT:
            self._wait(LowTrafficTrigger(spec_path=self.spec_path, ledger_run=ledger_run(context), since=now.isoformat()))
        self._end(context, verdict.outcome, verdict.message)

    def resume(self, context: Context, event: dict[str, Any]) -> None:
        """Continues with the event of the trigger.

        :param event: see :class:`LowTrafficTrigger`
        """
        outcome, message = event["outcome"], event["message"]
        self.log.info(message)
        if outcome == LONG:
            if self.on_long_wait is not None:
                self.on_long_wait(context, message)
            self._wait(LowTrafficTrigger(**event["arguments"]))
        if outcome == ERROR:
            raise AirflowFailException(message)
        self._end(context, Outcome(outcome), message)

    def _wait(self, trigger: LowTrafficTrigger) -> None:
        self.defer(trigger=trigger, method_name="resume")

    def _end(self, context: Context, outcome: Outcome, message: str) -> None:
        if outcome is Outcome.SKIP:
            with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
                rebuild.stand_down(message)
            raise AirflowSkipException(f"{message}. Blue stays live; green stays for inspection until housekeeping removes it")
        if outcome is Outcome.FAIL:
            raise AirflowFailException(
                f"{message}. Blue is live and untouched, green stays: clear this task to wait again, or trigger with 'swap now'"
            )
