"""Servers and databases for tests: one server of each kind a session, a fresh database for each test that asks."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.airflow_home import AirflowHome
from tests.servers import OwnServer, Server, mariadb_server, mysql_server, postgres_server

# Importing Airflow writes its configuration there; not into the home of whoever runs the tests.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

SERVERS: dict[str, Callable[[], Server]] = {"postgres": postgres_server, "mariadb": mariadb_server, "mysql": mysql_server}
DATABASES = ["sqlite", *SERVERS]

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is fast runs first, so that a plain mistake shows within seconds."""
    slow_marks = ["postgres", "mariadb", "mysql", "airflow", "slow"]
    items.sort(
        key=lambda item: max(
            (slow_marks.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in slow_marks), default=0
        )
    )


class Databases:
    """Starts servers when they are first needed, and makes databases on them."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def server(self, kind: str) -> Server:
        """The session's server of a kind."""
        if kind not in self._servers:
            self._servers[kind] = SERVERS[kind]()
        return self._servers[kind]

    def stop(self) -> None:
        """Ends the servers that the tests have started."""
        for server in self._servers.values():
            if isinstance(server, OwnServer):
                server.remove()


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """All servers of the session."""
    made = Databases()
    yield made
    made.stop()


@pytest.fixture
def new_database(databases: Databases, tmp_path: Path) -> Iterator[Callable[[str], sa.URL]]:
    """Makes empty databases of a kind for one test: ``new_database("mysql")``."""
    made: list[tuple[str, str]] = []

    def make(kind: str) -> sa.URL:
        name = f"rebuild_test_{os.getpid()}_{next(_numbers)}"
        if kind == "sqlite":
            return sa.make_url(f"sqlite:///{tmp_path / name}.db")
        made.append((kind, name))
        return databases.server(kind).create_database(name)

    yield make
    for kind, name in made:
        databases.server(kind).drop_database(name)


@pytest.fixture(params=[pytest.param(kind, marks=[getattr(pytest.mark, kind)] if kind in SERVERS else []) for kind in DATABASES])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of database in turn."""
    return str(request.param)


@pytest.fixture
def database_url(database_kind: str, new_database: Callable[[str], sa.URL]) -> sa.URL:
    """An empty database of each kind in turn."""
    return new_database(database_kind)


@pytest.fixture
def engine(database_url: sa.URL) -> Iterator[sa.Engine]:
    """An engine on an empty database of each kind in turn."""
    made = sa.create_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    """One Airflow for the session."""
    return AirflowHome(tmp_path_factory.mktemp("airflow"))
