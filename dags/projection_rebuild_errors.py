"""Shows the specs that cannot be used in Airflow's list of import errors.

In a file of its own: Airflow marks every DAG of a file with an import error, and a broken spec must not stop the others.
"""

from __future__ import annotations

from projection_rebuild_airflow import broken_specs

dag = broken_specs()
