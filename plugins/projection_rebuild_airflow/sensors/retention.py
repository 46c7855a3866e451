"""Waits until the retired tables may go, holding no worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseSensorOperator, Context

from projection_rebuild_airflow.operators.rebuild import airflow_errors
from projection_rebuild_airflow.runs import open_rebuild, run_is_over

LOOK_EVERY = timedelta(hours=1)


class RetentionSensor(BaseSensorOperator):
    """Passes when the old tables of its run are due.

    :param spec_path: the spec file
    """

    template_fields = ("spec_path",)

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec_path = spec_path

    def execute(self, context: Context, event: Any = None) -> None:
        """Looks when they are due, now and again when that moment has come."""
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            due = rebuild.drop_due(is_over=lambda run: run_is_over(context["ti"], run))
        if due <= datetime.now(UTC):
            return
        self.log.info("the old tables stay until %s UTC", f"{due:%Y-%m-%d %H:%M}")
        # Looked at now and then: a later switch may have dropped them, and then there is nothing to wait for.
        look = min(due, datetime.now(UTC) + LOOK_EVERY)
        self.defer(trigger=DateTimeTrigger(moment=look), method_name="execute")
