"""Holds the switch for a quiet moment. Each look is a short run on a worker; in between, only a timer waits."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseSensorOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from include.projection_rebuild.low_traffic import Traffic, judge
from include.projection_rebuild.spec import load_spec
from projection_rebuilds.operators.rebuild import airflow_errors
from projection_rebuilds.runs import open_rebuild


class LowTrafficSensor(BaseSensorOperator):
    """Passes inside the spec's low-traffic window when the application is quiet, or at once on "swap now".

    :param spec_path: the spec file
    """

    template_fields = ("spec_path",)

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec_path = spec_path

    def execute(self, context: Context) -> None:
        """Looks for the first time."""
        self.look(context, event=None, since=datetime.now(UTC).isoformat(), earlier=None)

    def look(self, context: Context, event: Any, since: str, earlier: dict[str, Any] | None) -> None:
        """Takes one look, and passes or sleeps until the next.

        :param since: when the waiting began
        :param earlier: the last look, from which appends are counted
        """
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            if rebuild.options().swap_now:
                self.log.info("swap now was chosen: not waiting for low traffic")
                return
            latest = rebuild.traffic()
        spec = load_spec(Path(self.spec_path))
        verdict = judge(spec.low_traffic, spec.zone, latest, Traffic.from_json(earlier) if earlier else None)
        self.log.info(verdict.message)
        if verdict.quiet:
            return
        deadline = datetime.fromisoformat(since) + spec.low_traffic.give_up_after
        if datetime.now(UTC) >= deadline:
            raise AirflowFailException(
                f"gave up after {spec.low_traffic.give_up_after} (low_traffic.give_up_after); last: {verdict.message}. Blue is live "
                "and untouched, green stays: clear this task to wait again, or trigger with 'swap now'"
            )
        self.defer(
            trigger=DateTimeTrigger(moment=min(verdict.look_again, deadline)),
            method_name="look",
            kwargs={"since": since, "earlier": latest.as_json()},
        )
