"""The plug-in for an Astro project, where the package is a folder.

An installed package registers itself by its entry point.
"""

from __future__ import annotations

from importlib.metadata import entry_points

# Airflow would report a second plug-in of the same name as an error.
if not entry_points(group="airflow.plugins", name="projection_rebuilds"):
    from projection_rebuild_airflow.plugin import ProjectionRebuildsPlugin

    __all__ = ["ProjectionRebuildsPlugin"]
