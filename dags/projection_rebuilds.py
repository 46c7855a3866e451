"""The Airflow DAGs ``rebuild_<name>``, one for each usable spec."""

from __future__ import annotations

from projection_rebuild_airflow import rebuild_dags

globals().update(rebuild_dags())
