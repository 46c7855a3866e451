"""An example of a DAG after a rebuild: it runs whenever a rebuild or a rollback has swapped ``monthly_summaries``."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import dag, task

from projection_rebuild_airflow.operators.rebuild import table_asset

MONTHLY_SUMMARIES = table_asset("universal", "monthly_summaries")


@dag(schedule=[MONTHLY_SUMMARIES], catchup=False, tags=["projection rebuild", "example"])
def example_after_rebuild() -> None:
    """Logs the swapped table; a real DAG would empty caches, or export the table again."""

    @task
    def say_what_is_new(triggering_asset_events: Any = None) -> None:
        for event in triggering_asset_events[MONTHLY_SUMMARIES]:
            logging.getLogger(__name__).info(
                "%s has %s rows since the switch of %s, and all events up to %s",
                event.asset.name,
                event.extra["rows"],
                event.extra["run_id"],
                event.extra["position"],
            )

    say_what_is_new()


example_after_rebuild()
