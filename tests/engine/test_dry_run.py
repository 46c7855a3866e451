"""The SQL that a dry run prints, executed from the shell of each database, leaves the schema that a run leaves."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.chains import create, run_of, schema_of
from tests.engine.harness.driver import run_to
from tests.servers.postgres import PostgresServer

CHOSEN = {"mysql": ("Dozen", 12), "sqlite": ("Thirty", 30)}
SIX = ("Six", 6)


def _printed(description: str) -> str:
    """What stands in a plan's text, for somebody who copies it."""
    sql = description.partition("  SQL, in this order")[2].partition("\n")[2]
    return sql.rpartition("  Dry run:")[0]


@pytest.fixture
def programs(request: pytest.FixtureRequest, database_kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of the server's own version, where it brings them along."""
    server = request.getfixturevalue("postgres_server") if database_kind == "postgres" else None
    if isinstance(server, PostgresServer):
        monkeypatch.setenv("PATH", str(server.programs / "bin"), prepend=os.pathsep)
        monkeypatch.setenv("REBUILD_PG_DUMP", str(server.programs / "bin/pg_dump"))


@pytest.fixture
def engines(programs: None, database_kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[list[sa.Engine]]:
    """Two databases with the same tables: for a run, and to be done by hand."""
    made = [sa.create_engine(new_database(database_kind)) for _ in range(2)]
    for engine in made:
        create(engine, CHOSEN.get(database_kind, SIX)[1])
    yield made
    for engine in made:
        engine.dispose()


def _shell(url: sa.URL) -> list[str]:
    """The program that comes with the database, told to end at the first error."""
    where = ["--host", str(url.host), "--port", str(url.port)]
    match url.get_backend_name():
        case "sqlite":
            return ["sqlite3", "-batch", "-bail", str(url.database)]
        case "postgresql":
            return ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *where, "--username", str(url.username), str(url.database)]
    return ["mysql", "--no-defaults", "--default-character-set=utf8mb4", *where, "--user", str(url.username), str(url.database)]


def _by_hand(engine: sa.Engine, sql: str) -> None:
    secret = engine.url.password or ""
    env = os.environ | {"PGPASSWORD": secret, "MYSQL_PWD": secret}
    done = subprocess.run(_shell(engine.url), input=sql, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_printed_sql_leaves_what_a_run_leaves(engines: list[sa.Engine], database_kind: str) -> None:
    one, other = engines
    before = schema_of(one)
    assert schema_of(other) == before
    name = CHOSEN.get(database_kind, SIX)[0]
    planned = run_of(other, name, "dry")
    printed = _printed(planned.plan(RunOptions(dry_run=True)).describe())
    planned.close()
    run = run_of(one, name, "run")
    run_to(run, "reconcile")
    kept = schema_of(one)
    run.drop_old()
    run.close()
    assert schema_of(one) == before
    # As far as the drops, the retired tables are the same, too.
    renamed, dropped = re.split(r"(?m)^(?=    DROP TABLE .*_old)", printed, maxsplit=1)
    _by_hand(other, renamed)
    assert schema_of(other) == kept
    _by_hand(other, dropped)
    assert schema_of(other) == before


def test_the_printed_sql_of_a_rollback_leaves_what_a_rollback_leaves(engines: list[sa.Engine]) -> None:
    one, other = engines
    name, _ = SIX
    for engine in engines:
        run = run_of(engine, name, "run")
        run_to(run, "reconcile")
        run.close()
    planned = run_of(other, name, "dry")
    printed = _printed(planned.plan_rollback(RunOptions(dry_run=True)).describe())
    planned.close()
    back = run_of(one, name, "back")
    back.plan_rollback(RunOptions())
    back.bring_back()
    back.swap()
    back.reconcile()
    back.close()
    _by_hand(other, printed)
    assert schema_of(other) == schema_of(one)
