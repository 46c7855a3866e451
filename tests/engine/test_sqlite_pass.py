"""SQLite's switch edits the schema in one pass: what it leaves, what it costs, and what a switch that is given up leaves."""

from __future__ import annotations

import ctypes
import ctypes.util
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Dialect, LockPolicy, PauseTooLong
from projection_rebuild.errors import PlanError
from projection_rebuild.model.names import TableSet
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness.driver import run_to
from tests.engine.harness.fidelity import run_of
from tests.engine.harness.fidelity_sqlite import schema_of
from tests.engine.harness.seams import just_before

# In the words in which ALTER TABLE itself writes names, so that both ways can be held against each other.
PARTS = {
    "parent": '(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, up INT REFERENCES "parent" (id)) STRICT',
    "child": '(id TEXT, parent INT REFERENCES "parent" (id), twice AS (id || id), PRIMARY KEY (id, parent), UNIQUE (parent)) WITHOUT ROWID',
    "quo'te": '(id INTEGER PRIMARY KEY, at "da te", UNIQUE (at, id)) -- a remark',
}
INDEXES = {
    "ix parent": 'CREATE INDEX "ix parent" ON "parent"(name, up)',
    "ix child": 'CREATE UNIQUE INDEX "ix child" ON "child"(lower(id)) WHERE parent > 0',
}
TRIGGERS = {
    "b fires": 'CREATE TRIGGER "b fires" AFTER INSERT ON "parent" BEGIN INSERT INTO told VALUES (\'b\'); END',
    "a fires": 'CREATE TRIGGER "a fires" AFTER INSERT ON "parent" BEGIN INSERT INTO told VALUES (\'a\'); END',
}
BESIDE = [
    "CREATE TABLE told (what TEXT)",
    'CREATE VIEW "both" AS SELECT c.id, p.name FROM child c JOIN parent p ON p.id = c.parent',
    "CREATE VIRTUAL TABLE words USING fts5(word)",
]
TABLES = [TableSet.of(name, schema=None, limit=1_000) for name in PARTS]
IN_TIME = LockPolicy(timedelta(seconds=1))


def _filled(name: str) -> list[str]:
    """Rows of a table with one of these suffixes."""
    return [
        f"INSERT INTO {name.format('parent')} (id, name) VALUES (7, 'seven'), (8, 'eight')",
        f"INSERT INTO {name.format('child')} (id, parent) VALUES ('one', 7)",
        f"""INSERT INTO {name.format("quo'te")} (id, at) VALUES (1, 'now')""",
    ]


@pytest.fixture(params=["delete", "wal"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """Tables with green ones, all filled, in each of the journals that leave a file as it was."""
    made = sa.create_engine(f"sqlite:///{tmp_path / 'parts.db'}")
    dialect = dialect_for(made)
    with dialect.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA journal_mode = {request.param}")
        tables = [f'CREATE TABLE "{name}" {body}' for name, body in PARTS.items()]
        for statement in [*tables, *INDEXES.values(), *BESIDE, *TRIGGERS.values(), *_filled('"{}"')]:
            connection.exec_driver_sql(statement)
        for table in TABLES:
            for statement in [*dialect.shadow.create_green(connection, table), *dialect.shadow.index_green(connection, table)]:
                dialect.run(connection, statement)
        for statement in [*_filled('"{}_rebuild"'), "ANALYZE"]:
            connection.exec_driver_sql(statement)
    yield made
    made.dispose()


def _master(connection: sa.Connection, what: str = "type, name, tbl_name, sql") -> list[tuple[Any, ...]]:
    return [tuple(each) for each in connection.exec_driver_sql(f"SELECT {what} FROM sqlite_master ORDER BY type, name")]


def _switch(dialect: Dialect, connection: sa.Connection, policy: LockPolicy = IN_TIME) -> None:
    statements = dialect.swap_statements(connection, TABLES).statements
    with dialect.cutover.lock_tables(connection, TABLES, policy, []) as held:
        held.run_swap(statements, policy)


def _altered(connection: sa.Connection) -> None:
    """The same by ALTER TABLE, which takes foreign keys along only while they are checked."""
    connection.exec_driver_sql("PRAGMA foreign_keys = 1")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    for trigger in TRIGGERS:
        connection.exec_driver_sql(f'DROP TRIGGER "{trigger}"')
    for name in PARTS:
        connection.exec_driver_sql(f'ALTER TABLE "{name}" RENAME TO "{name}_old"')
        connection.exec_driver_sql(f'ALTER TABLE "{name}_rebuild" RENAME TO "{name}"')
    for name, sql in INDEXES.items():
        connection.exec_driver_sql(f'DROP INDEX "{name}"')
        connection.exec_driver_sql(f'DROP INDEX "{name}_rebuild"')
        connection.exec_driver_sql(sql)
        table = "parent" if "parent" in name else "child"
        connection.exec_driver_sql(sql.replace(f'"{name}"', f'"{name}_old"').replace(f'"{table}"', f'"{table}_old"'))
    for sql in TRIGGERS.values():
        connection.exec_driver_sql(sql)
    connection.exec_driver_sql("COMMIT")


def _sound(connection: sa.Connection) -> None:
    assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_the_pass_leaves_what_alter_table_leaves(parts: sa.Engine, tmp_path: Path) -> None:
    with closing(sqlite3.connect(str(parts.url.database))) as one, closing(sqlite3.connect(tmp_path / "other.db")) as copy:
        one.backup(copy)
    other = sa.create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    dialect = dialect_for(parts)
    with dialect.connect() as connection, dialect_for(other).connect() as reference:
        live = [each for each in _master(connection) if "_rebuild" not in each[1]]
        statistics = set(connection.exec_driver_sql("SELECT tbl, idx, stat FROM sqlite_stat1"))
        _switch(dialect, connection)
        _altered(reference)
        assert _master(connection) == _master(reference)
        assert [each for each in _master(connection) if "_old" not in each[1]] == live
        for query in ("SELECT name, seq FROM sqlite_sequence ORDER BY 1", "SELECT * FROM parent", "SELECT * FROM parent_old"):
            assert connection.exec_driver_sql(query).all() == reference.exec_driver_sql(query).all()
        # ALTER TABLE loses these. Those of green are the live ones now, and say the same.
        now = set(connection.exec_driver_sql("SELECT tbl, idx, stat FROM sqlite_stat1"))
        lives = {each for each in statistics if "_rebuild" not in f"{each}"}
        assert lives and {each for each in now if "_old" not in f"{each}"} == lives and len(now) == len(statistics)
        _sound(connection)
        # The last trigger is the first to fire, as before.
        connection.exec_driver_sql("INSERT INTO parent (name) VALUES ('new')")
        assert connection.exec_driver_sql("SELECT what FROM told ORDER BY rowid").scalars().all()[-2:] == ["a", "b"]
        for table in reversed(TABLES):
            for statement in dialect.shadow.drop_table(connection, table, table.old):
                dialect.run(connection, statement)
        assert _master(connection) == live
        _sound(connection)
    other.dispose()


def test_a_switch_whose_time_is_up_after_any_statement_leaves_all_as_it_was(parts: sa.Engine) -> None:
    dialect = dialect_for(parts)
    with dialect.connect() as connection:
        before, done = _master(connection, "*"), 0
        statements = len(dialect.swap_statements(connection, TABLES).statements)
        for looks in range(statements + 1):
            left = iter([1.0] * looks)
            with pytest.raises(PauseTooLong):
                _switch(dialect, connection, LockPolicy(timedelta(seconds=1), left=lambda left=left: next(left, 0.0)))  # type: ignore[misc]
            assert _master(connection, "*") == before
            assert connection.exec_driver_sql("SELECT count(*) FROM both, parent_rebuild").scalar_one() == 2
            done += 1
        assert done == statements + 1
        _sound(connection)
        _switch(dialect, connection)
        assert _master(connection, "*") != before


KILLED = """
import os, signal, sys
import sqlalchemy as sa
from projection_rebuild.dialects import dialect_for
from tests.engine.test_sqlite_pass import IN_TIME, TABLES

dialect = dialect_for(sa.create_engine(sys.argv[1]))
with dialect.connect() as connection:
    # So that changed pages are in the file before the end.
    connection.exec_driver_sql("PRAGMA cache_size = 1")
    statements = dialect.swap_statements(connection, TABLES).statements
    with dialect.cutover.lock_tables(connection, TABLES, IN_TIME, []) as held:
        held.run_swap(statements, IN_TIME)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_before_its_commit_leaves_all_as_it_was(parts: sa.Engine) -> None:
    with parts.connect() as connection:
        before = _master(connection, "*")
    parts.dispose()
    ended = subprocess.run([sys.executable, "-c", KILLED, parts.url.render_as_string()], capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    with parts.connect() as connection:
        assert _master(connection, "*") == before
        _sound(connection)


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(".dbconfig defensive on", id="defensive"),
        pytest.param("CREATE INDEX beside ON parent (up);", id="index since"),
        pytest.param('DROP INDEX "ix parent";', id="index gone"),
    ],
)
def test_a_shell_that_goes_on_behind_an_error_changes_nothing(parts: sa.Engine, before: str) -> None:
    """As sqlite3 does unless it is told otherwise; the statements may be from before a change."""
    dialect, file = dialect_for(parts), str(parts.url.database)
    with dialect.connect() as connection:
        statements = [dialect.begin, *dialect.swap_statements(connection, TABLES).statements, "COMMIT"]
    first = "" if before.startswith(".") else before
    subprocess.run(["sqlite3", file], input=first, text=True, check=True)
    with parts.connect() as connection:
        whole = _master(connection), connection.exec_driver_sql("SELECT * FROM sqlite_sequence").all()
    script = "\n".join([before if not first else "", *(f"{each};" for each in statements)])
    subprocess.run(["sqlite3", "-batch", file], input=script, text=True, capture_output=True)
    with parts.connect() as connection:
        assert (_master(connection), connection.exec_driver_sql("SELECT * FROM sqlite_sequence").all()) == whole
        _sound(connection)


def _steps(tables: int, folder: Path) -> int:
    """What SQLite has to do for a switch of so many tables, in steps of its own machine."""
    engine = sa.create_engine(f"sqlite:///{folder / str(tables)}.db")
    dialect, steps = dialect_for(engine), [0]
    sets = [TableSet.of(f"t{number}", schema=None, limit=1_000) for number in range(tables)]

    def count() -> int:
        steps[0] += 1
        return 0

    with dialect.connect() as connection:
        for each in sets:
            refers = "" if each is sets[0] else f", before INT REFERENCES {sets[0].blue}"
            connection.exec_driver_sql(
                f"CREATE TABLE {each.blue} (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE{refers})"
            )
            connection.exec_driver_sql(f"CREATE INDEX ix_{each.blue} ON {each.blue} (name, id)")
            for statement in [*dialect.shadow.create_green(connection, each), *dialect.shadow.index_green(connection, each)]:
                dialect.run(connection, statement)
        statements = dialect.swap_statements(connection, sets).statements
        driver: Any = connection.connection.driver_connection
        with dialect.cutover.lock_tables(connection, sets, IN_TIME, []) as held:
            driver.set_progress_handler(count, 100)
            held.run_swap(statements, IN_TIME)
            driver.set_progress_handler(None, 0)
    engine.dispose()
    return steps[0]


def test_the_cost_grows_with_the_tables_and_not_with_their_square(tmp_path: Path) -> None:
    assert _steps(80, tmp_path) < 5 * _steps(20, tmp_path)


def test_a_schema_that_changes_before_the_lock_is_read_anew(
    rich_sqlite: sa.Engine, rich_application: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = run_of(rich_sqlite, "run")
    run_to(made, "verify")
    before = [each for each in schema_of(rich_sqlite) if "_rebuild" not in each[1]]
    just_before(monkeypatch, rich_sqlite, "lock_tables", "CREATE TABLE beside (id INTEGER)")
    assert made.swap().attempts == 2
    made.drop_old()
    assert [each for each in schema_of(rich_sqlite) if each[1] != "beside"] == before
    made.close()


def _defend(connection: sqlite3.Connection, _record: object) -> None:
    """Turns the defensive mode on, which Python itself can do since 3.12."""
    setting = 1010
    if hasattr(connection, "setconfig"):
        connection.setconfig(setting, True)
        return
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3"))
    # The handle stands right behind the head of every Python object.
    handle = ctypes.c_void_p.from_address(id(connection) + object.__basicsize__)
    assert library.sqlite3_db_config(handle, setting, 1, None) == 0


def test_a_schema_that_may_not_be_edited_is_refused_by_the_plan(rich_sqlite: sa.Engine, rich_application: object) -> None:
    sa.event.listen(rich_sqlite, "connect", _defend)
    rich_sqlite.dispose()
    with pytest.raises(PlanError, match=r"SQLite keeps the schema from being edited \(its defensive mode\)"):
        run_of(rich_sqlite, "run").plan(RunOptions())


def test_a_writer_at_work_is_not_taken_for_that(rich_sqlite: sa.Engine, rich_application: object) -> None:
    dialect, tables = dialect_for(rich_sqlite), [TableSet.of("order", schema=None, limit=100)]
    with rich_sqlite.connect() as writer, dialect.connect() as connection:
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        dialect.limit_lock_wait(connection, timedelta(0))
        assert dialect.dependents.unsupported_objects(connection, tables) == []
