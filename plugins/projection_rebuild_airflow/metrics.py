"""Sends metrics to Airflow's own statistics (StatsD, OpenTelemetry), tagged with the DAG and the projector or table.

=============================================  =======  ===================================================
name                                           kind     meaning
=============================================  =======  ===================================================
``projection_rebuild.events``                  gauge    events replayed so far, by projector
``projection_rebuild.events_per_second``       gauge    the rate of a replay, by projector
``projection_rebuild.lag``                     gauge    positions between a replay and the head, by projector
``projection_rebuild.pause``                   timing   milliseconds for which a switch held writers
``projection_rebuild.switches``                counter  switches done
``projection_rebuild.rows``                    gauge    rows after a switch, by table
=============================================  =======  ===================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Airflow 3.2 has only the class, 3.3 also functions beside it.
from airflow.sdk.observability.stats import Stats as stats

from projection_rebuild.api import Checkpoint, SwapResult

PREFIX = "projection_rebuild"


def of_replay(dag_id: str, now: Checkpoint, rate: float) -> dict[str, Any]:
    """Sends the progress of a replay.

    :param rate: events per second
    :returns: the same values, as plain JSON
    """
    # At the beginning, the replay does not know the head of the event store yet.
    lag = None if now.head is None or now.position is None else max(0, now.head - now.position)
    tags = {"dag_id": dag_id, "projector": now.projector}
    stats.gauge(f"{PREFIX}.events", now.events, tags=tags)
    stats.gauge(f"{PREFIX}.events_per_second", rate, tags=tags)
    if lag is not None:
        stats.gauge(f"{PREFIX}.lag", lag, tags=tags)
    return {
        "projector": now.projector,
        "events": now.events,
        "position": now.position,
        "head": now.head,
        "lag": lag,
        "events_per_second": round(rate),
    }


def of_switch(dag_id: str, result: SwapResult, rows: Mapping[str, int]) -> None:
    """Sends the pause of a swap and the rows of each table after it."""
    stats.timing(f"{PREFIX}.pause", result.pause_seconds * 1000, tags={"dag_id": dag_id})
    stats.incr(f"{PREFIX}.switches", tags={"dag_id": dag_id})
    for table, count in rows.items():
        stats.gauge(f"{PREFIX}.rows", count, tags={"dag_id": dag_id, "table": table})
