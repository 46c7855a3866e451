"""The Airflow DAG ``projection_housekeeping``, which removes by rule what dead runs of the rebuilds have left."""

from __future__ import annotations

from projection_rebuild_airflow import housekeeping_dag

dag = housekeeping_dag()
