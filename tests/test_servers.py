"""The test servers themselves: each answers, is closed to other machines, survives a kill, and outlives no test run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import DATABASES, SERVERS
from tests.servers import OwnServer, Server
from tests.servers.base import ServerMissing

ROOT = Path(__file__).parents[1]
KINDS = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in SERVERS]
# What keeps a server at work for longer than a test lasts, and what tells that it does.
BUSY = {
    "postgresql": "SELECT count(*) FROM generate_series(1, 3000000000)",
    "mysql": "SELECT sleep(60)",
}
BUSY_CLIENTS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%%sleep(60)' AND id <> connection_id()",
}
A_TEST_RUN = """
import sys
from tests import servers
server = getattr(servers, sys.argv[1] + "_server")()
print(getattr(server, "folder", ""), server.url, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def breakable(kind: str) -> Iterator[Server]:
    """A server for one test, which may break it; its commits wait for the disk."""
    made = SERVERS[kind](durable=True)
    yield made
    if isinstance(made, OwnServer):
        made.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_comes_back_after_a_kill_at_work(kind: str, breakable: Server) -> None:
    engine = sa.create_engine(breakable.create_database("comes_back"), poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (n int)")
        connection.exec_driver_sql("INSERT INTO t VALUES (7)")
    if isinstance(breakable, OwnServer):
        client = threading.Thread(target=_work, args=(engine,))
        client.start()
        _until(lambda: _scalar(engine, BUSY_CLIENTS[engine.dialect.name]))
        breakable.kill()
        client.join()
        breakable.start()
    assert _scalar(engine, "SELECT n FROM t") == 7
    breakable.drop_database("comes_back")


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_does_not_outlive_a_killed_test_run(kind: str) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", A_TEST_RUN, kind], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    folder, _, url = run.stdout.readline().strip().partition(" ")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    assert _scalar(engine, "SELECT 1") == 1
    run.send_signal(signal.SIGKILL)
    run.communicate()
    if folder:
        _until(lambda: not _answers(engine))
        # It may still be at its last files.
        _until(lambda: not subprocess.run(["rm", "-rf", folder], check=False).returncode)


def test_postgres_is_the_newest(postgres_server: Server, postgres_url: sa.URL) -> None:
    assert postgres_url.database != postgres_server.url.database
    major = os.environ.get("REBUILD_TEST_POSTGRES_MAJOR", "18")
    given = "REBUILD_TEST_POSTGRES_URL" in os.environ
    assert given or _version(postgres_url).startswith(f"PostgreSQL {major}.")


def test_mariadb_is_mariadb(mariadb_server: Server, mariadb_url: sa.URL) -> None:
    assert mariadb_url.database != mariadb_server.url.database
    assert "MariaDB" in _version(mariadb_url)


def test_mysql_is_not_mariadb_under_its_name(mysql_server: Server, mysql_url: sa.URL) -> None:
    assert mysql_url.database != mysql_server.url.database
    assert "MariaDB" not in _version(mysql_url)


def test_a_database_is_empty(database_url: sa.URL, sqlite_url: sa.URL) -> None:
    for url in (database_url, sqlite_url):
        assert sa.inspect(sa.create_engine(url, poolclass=sa.NullPool)).get_table_names() == []


def test_every_kind_of_database_is_tested() -> None:
    assert DATABASES == ["sqlite", "postgres", "mariadb", "mysql"]


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("mariadb", "mysql")])
def test_servers_of_the_mysql_family_are_set_up_alike(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind), poolclass=sa.NullPool)
    settings = "SELECT @@local_infile, @@log_bin, @@max_connections, @@character_set_connection, @@bind_address"
    with engine.connect() as connection:
        assert tuple(connection.exec_driver_sql(settings).one()) == (1, 0, 500, "utf8mb4", "127.0.0.1")


def test_a_postgres_that_is_not_installed_is_named() -> None:
    with pytest.raises(ServerMissing, match="install postgresql-9"):
        SERVERS["postgres"](major="9")


def _work(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.OperationalError), engine.connect() as connection:
        connection.exec_driver_sql(BUSY[engine.dialect.name])


def _answers(engine: sa.Engine) -> bool:
    try:
        return bool(_scalar(engine, "SELECT 1"))
    except sa.exc.OperationalError:
        return False


def _scalar(engine: sa.Engine, statement: str) -> object:
    with engine.connect() as connection:
        return connection.exec_driver_sql(statement).scalar_one()


def _version(url: sa.URL) -> str:
    return str(_scalar(sa.create_engine(url, poolclass=sa.NullPool), "SELECT version()"))


def _until(holds: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
