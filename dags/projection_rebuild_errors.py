"""Reports broken specs in Airflow's list of import errors.

This is a separate file because an import error breaks every DAG of its file, and a broken spec must not stop the
others.
"""

from __future__ import annotations

from projection_rebuild_airflow import broken_specs

dag = broken_specs()
