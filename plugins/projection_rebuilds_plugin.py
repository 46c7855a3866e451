"""The plug-in of an Astro project, where the face is a folder. Where it is installed as a package, Airflow finds it without this file."""

from __future__ import annotations

from importlib.metadata import entry_points

# Airflow would list the second of the same name as an error.
if not entry_points(group="airflow.plugins", name="projection_rebuilds"):
    from projection_rebuild_airflow.plugin import ProjectionRebuildsPlugin

    __all__ = ["ProjectionRebuildsPlugin"]
