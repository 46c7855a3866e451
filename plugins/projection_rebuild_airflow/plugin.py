"""Registers our page and our links with Airflow.

All of Airflow's components import this file, so it imports what only some of them need at the first use.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from projection_rebuild_airflow import links


class ProjectionRebuildsPlugin(AirflowPlugin):
    """The page "Projection rebuilds" in the navigation and on each DAG run, and the links of our operators."""

    name = "projection_rebuilds"

    # Relative addresses: Airflow's UI resolves them below its own, whatever prefix it is served under.
    external_views = [  # noqa: RUF012 - Airflow's own way
        {
            "name": "Projection rebuilds",
            "href": f"{links.PAGE}/",
            "destination": "nav",
            "url_route": links.PAGE,
            "icon": f"{links.PAGE}/assets/icon.svg",
        },
        {
            "name": "Projection rebuild",
            "href": f"{links.PAGE}/?dag_id={{DAG_ID}}&run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": links.RUN_TAB,
            "icon": f"{links.PAGE}/assets/icon.svg",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """The routes of the page; only the API server uses them."""
        from projection_rebuild_airflow.page.app import app

        return [{"app": app, "url_prefix": f"/{links.PAGE}", "name": "Projection rebuilds"}]

    @cached_property
    def operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        """The links on our tasks; only components that show DAGs use them."""
        from projection_rebuild_airflow.operator_links import RebuildPageLink, RollbackLink

        return [RebuildPageLink(), RollbackLink()]
