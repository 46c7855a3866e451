"""Forwards the name that ``projection_rebuild_airflow`` had in version 0.1.

Airflow's records name triggers and callbacks by it.
"""

from projection_rebuild.api import old_paths

old_paths.renamed(__name__, "projection_rebuild_airflow")
