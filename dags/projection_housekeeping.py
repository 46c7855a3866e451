"""The Airflow DAG ``projection_housekeeping``, which removes the leftovers of dead runs by the rules of their specs."""

from __future__ import annotations

from projection_rebuild_airflow import housekeeping_dag

dag = housekeeping_dag()
