"""Waits until the retired tables may be dropped, and holds no worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseSensorOperator, Context

from projection_rebuild_airflow.operators.rebuild import airflow_errors
from projection_rebuild_airflow.runs import is_over_by, open_rebuild

LOOK_EVERY = timedelta(hours=1)
"""A later run may drop the tables, so the sensor does not sleep until they are due."""


class RetentionSensor(BaseSensorOperator):
    """Passes when the old tables of its run may be dropped.

    :param spec_path: the spec file
    """

    template_fields = ("spec_path",)

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec_path = spec_path

    def execute(self, context: Context, event: Any = None) -> None:
        """Ends if the tables are due; otherwise waits until then, or until the next look.

        :param event: the event of the trigger; None: the task has not waited yet
        """
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            due = rebuild.drop_due(is_over=is_over_by(context))
        if due <= datetime.now(UTC):
            return
        self.log.info("the old tables stay until %s UTC", f"{due:%Y-%m-%d %H:%M}")
        next_look = min(due, datetime.now(UTC) + LOOK_EVERY)
        self.defer(trigger=DateTimeTrigger(moment=next_look), method_name="execute")
