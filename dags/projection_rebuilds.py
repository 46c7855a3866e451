"""The Airflow DAGs ``rebuild_<name>``, one for each usable spec."""

from __future__ import annotations

from projection_rebuild_airflow.dag_factory import rebuild_dags

globals().update(rebuild_dags())
