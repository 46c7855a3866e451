"""Servers and databases for tests: one server of each kind a session, a fresh database for each test that asks."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests import servers
from tests.airflow_home import AirflowHome
from tests.servers import OwnServer, Server
from tests.servers.in_memory import keep_files_in_memory
from tools.airflow_up import configuration

# Before anything makes a temporary file.
keep_files_in_memory()

# Whoever imports Airflow first makes it read these; not the home and the database of whoever runs the tests.
AIRFLOW = Path(tempfile.mkdtemp(prefix="airflow-"))
os.environ.update(configuration(AIRFLOW, port=8080))
atexit.register(shutil.rmtree, AIRFLOW, ignore_errors=True)

SERVERS: dict[str, Callable[..., Server]] = {
    "postgres": servers.postgres_server,
    "mariadb": servers.mariadb_server,
    "mysql": servers.mysql_server,
}
DATABASES = ["sqlite", *SERVERS]
# A test that asks for one of these has its mark.
MARKS = {f"{kind}_{what}": kind for kind in SERVERS for what in ("server", "url")} | {
    "airflow_home": "airflow",
    "running_airflow": "browser",
}

EVERY_STATEMENT = "REBUILD_TEST_EVERY_STATEMENT" in os.environ
"""Not just the statements that change something, and each fault on every database, which takes long."""

IN_TURN = {
    f"{name}.py"
    for name in (
        *("test_rebuild", "test_partial", "test_sets", "test_external", "test_dead_letters", "test_replay", "test_programs"),
        *(
            "test_overview",
            "test_upcasting",
            "test_shards",
            "test_shards_unreadable",
            "test_housekeeping",
            "test_gate",
            "test_stages",
        ),
        *("test_throttle", "test_command_line", "test_edited_between_steps", "test_record", "test_errors", "test_rollback"),
        *(
            "test_error_boundary",
            "test_missing_parents",
            "test_two_databases",
            "test_live",
            "test_reading",
            "test_store_strangers",
        ),
        *("test_check", "test_check_everything", "test_assert_agrees", "test_check_mutations", "test_check_properties"),
        *("test_error_sweep", "test_store_contents", "test_store_positions", "test_contracts", "test_one_answer", "test_settle"),
        *("test_changed_since", "test_mutations", "test_dry_run", "test_sample", "test_planted_faults"),
        "test_fidelity_postgres",
    )
}
"""Modules of whose cases each of two alike databases has one half where workers share the work; see :data:`ALIKE`.

All cases run without ``-n``, and in the long sweeps.
"""

ALIKE = (("mariadb", "mysql"), ("15", "newest"))
"""Databases whose cases differ by little: of one family, or the oldest and the newest version of one."""

TURNS = ("browser", "airflow", "postgres", "slow", "mariadb", "mysql")
"""The order of tests by their marks; those without one of these come before."""

_numbers = itertools.count(1)

_LEFT = pytest.StashKey[int]()
"""How many cases the run has left to the other database."""


def pytest_configure() -> None:
    """A terminated run ends as Ctrl-C ends it: servers are stopped and folders removed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, None, None]:
    """What is fast runs first, so that a plain mistake shows within seconds; see :func:`_turn`."""
    for item in items:
        for fixture in MARKS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKS[fixture])
        # One that makes its databases itself is named after them.
        for kind in SERVERS.keys() & _given(item):
            item.add_marker(kind)
        # One Airflow serves all of its tests, in one of the processes that share the work.
        for mark in ("airflow", "browser"):
            if item.get_closest_marker(mark) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(mark))
    yield
    # After -k and -m: a case whose twin they have taken out is nobody else's.
    if hasattr(config, "workerinput") and not EVERY_STATEMENT:
        all_of_them = {item.nodeid for item in items}
        left_out = [item for item in items if _twin_of(item) in all_of_them]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
        config.stash[_LEFT] = len(left_out)
    items.sort(key=_turn)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells how many cases it has left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = session.config.stash.get(_LEFT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Workers collect the same cases, so that one number is that of all; one that has crashed tells none."""
    node.config.stash[_LEFT] = getattr(node, "workeroutput", {}).get("left", node.config.stash.get(_LEFT, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says what did not run, so that nobody takes a half for all."""
    if left := config.stash.get(_LEFT, 0):
        terminalreporter.write_line(
            f"{left} case{'s' * (left > 1)} left to the other database (IN_TURN in tests/conftest.py); "
            "they run without -n, or with REBUILD_TEST_EVERY_STATEMENT=1",
            yellow=True,
        )


def _turn(item: pytest.Item) -> tuple[int, bool]:
    """What mostly waits begins early, so that the rest runs beside it; what is long comes before the many that are short.

    A proof keeps the machine busy by itself: one after the other, and not at the end, when there is nothing else to do beside it.
    """
    names = {mark.name for mark in item.iter_markers()}
    if "slow" in names:
        return TURNS.index("slow"), "xdist_group" not in names
    return max((TURNS.index(name) for name in names.intersection(TURNS)), default=-1), False


def _given(item: pytest.Item) -> set[str]:
    """What its name says of its parameters."""
    return {*item.name.partition("[")[2].rstrip("]").split("-")}


def _twin_of(item: pytest.Item) -> str | None:
    """The same case on another database that is much alike, if it is the other's turn; see :data:`IN_TURN`."""
    if item.path.name not in IN_TURN:
        return None
    for pair in ALIKE:
        if len(kinds := _given(item).intersection(pair)) == 1:
            (kind,) = kinds
            other = pair[kind == pair[0]]
            both = item.nodeid.replace(kind, pair[0]).encode()
            return item.nodeid.replace(kind, other) if other == pair[zlib.crc32(both) % 2] else None
    return None


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


@pytest.fixture(scope="session")
def postgres_server(databases: Databases) -> Server:
    """The session's PostgreSQL."""
    return databases.server("postgres")


@pytest.fixture(scope="session")
def mariadb_server(databases: Databases) -> Server:
    """The session's MariaDB."""
    return databases.server("mariadb")


@pytest.fixture(scope="session")
def mysql_server(databases: Databases) -> Server:
    """The session's MySQL."""
    return databases.server("mysql")


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


@pytest.fixture
def sqlite_url(new_database: Callable[[str], sa.URL]) -> sa.URL:
    """An empty SQLite database."""
    return new_database("sqlite")


@pytest.fixture
def postgres_url(new_database: Callable[[str], sa.URL]) -> sa.URL:
    """An empty PostgreSQL database."""
    return new_database("postgres")


@pytest.fixture
def mariadb_url(new_database: Callable[[str], sa.URL]) -> sa.URL:
    """An empty MariaDB database."""
    return new_database("mariadb")


@pytest.fixture
def mysql_url(new_database: Callable[[str], sa.URL]) -> sa.URL:
    """An empty MySQL database."""
    return new_database("mysql")


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
def airflow_home() -> AirflowHome:
    """One Airflow for the session, its database migrated; this process is configured for it as well."""
    return AirflowHome(AIRFLOW)
