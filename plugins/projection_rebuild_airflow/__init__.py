"""Projection rebuilds in Airflow: operators, sensors and the DAG factory over the engine ``projection_rebuild``.

A DAG file needs :func:`rebuild_dags`, :func:`housekeeping_dag` and :func:`broken_specs`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from projection_rebuild_airflow.dag_factory import broken_specs, housekeeping_dag, rebuild_dags

__all__ = ["broken_specs", "housekeeping_dag", "rebuild_dags"]


def __getattr__(name: str) -> object:
    """Imports the DAG factory at the first use of one of its functions.

    All of Airflow's components import this package for the plug-in, and only some need the factory.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.dag_factory"), name)
