"""One running Airflow for all tests of the UI, beside an application at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.airflow_home import connection
from tests.browser.harness.application import Application
from tests.browser.harness.running import RunningAirflow
from tests.browser.harness.waves import Waves
from tests.conftest import Databases

PROJECTORS = ["ExpenseProjector", "CategorySummaryProjector", "MonthlySummaryProjector"]
BASE: dict[str, Any] = {
    "schedule": None,
    "projectors": [f"include.universal.projectors:{name}" for name in PROJECTORS],
    "throttle": {"max_replica_lag": "1s", "replica_lag": "SELECT seconds FROM replica_lag", "look_every": "200ms"},
}
"""Of the spec; the rest is the example's."""


@pytest.fixture(scope="package")
def application(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The example application, appending and projecting."""
    server = databases.server("postgres")
    made = Application(server.create_database("rebuild_browser"), tmp_path_factory.mktemp("specs"))
    made.write_spec(**BASE)
    made.start()
    yield made
    made.close()
    server.drop_database("rebuild_browser")


@pytest.fixture(scope="package")
def waves(databases: Databases, application: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Waves]:
    """A shop whose rebuild has a program and stages."""
    server = databases.server("postgres")
    made = Waves(server.create_database("rebuild_waves"), application.spec.parent, tmp_path_factory.mktemp("waves") / "waits")
    yield made
    made.engine.dispose()
    server.drop_database("rebuild_waves")


@pytest.fixture(scope="package")
def running_airflow(
    databases: Databases, application: Application, waves: Waves, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAirflow]:
    """Airflow with the specs of both, its own database on PostgreSQL: on SQLite its parts find each other's locks when busy."""
    home: Path = tmp_path_factory.mktemp("airflow")
    server = databases.server("postgres")
    metadata = server.create_database("rebuild_airflow").render_as_string(hide_password=False)
    told = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": metadata,
        "AIRFLOW_CONN_UNIVERSAL_DB": connection(application.url),
        "AIRFLOW_CONN_WAVES_DB": connection(waves.engine.url),
        "PROJECTION_REBUILD_SPECS": str(application.spec.parent),
    }
    made = RunningAirflow(home, told)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        server.drop_database("rebuild_airflow")
