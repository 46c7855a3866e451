"""A rebuild leaves SQLite's schema as it was, to the byte, whatever hangs on the tables and whoever uses them meanwhile."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import LockPolicy
from projection_rebuild.dialects.sqlite import create_table as text
from projection_rebuild.errors import CloneError, PlanError, VerificationFailed
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import fidelity
from tests.engine.harness.driver import run_to
from tests.engine.harness.fidelity import (
    CUSTOMERS,
    LINES,
    ORDERS,
    PROJECTORS,
    TOTALS,
    Application,
    assert_right,
    rebuild_once,
    run_of,
)
from tests.engine.harness.fidelity_sqlite import schema_of
from tests.engine.harness.seams import just_before

LOCK_WAIT = timedelta(seconds=1)
REBUILDS = int(os.environ.get("REBUILD_TEST_FIDELITY_REBUILDS", "3"))


def rows_of(engine: sa.Engine, query: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def sequences(engine: sa.Engine) -> dict[object, object]:
    return dict(rows_of(engine, "SELECT name, seq FROM sqlite_sequence"))  # type: ignore[arg-type]


def test_the_schema_is_the_same_to_the_byte_after_rebuilds_under_load(
    rich_sqlite: sa.Engine, rich_application: Application
) -> None:
    before = schema_of(rich_sqlite)
    with rich_application:
        for number in range(REBUILDS):
            rebuild_once(rich_sqlite, f"run-{number}")
            assert schema_of(rich_sqlite) == before
    assert rich_application.failures == []
    assert rich_application.appended > fidelity.FILLED and rich_application.reads > 0
    ((fired,),) = rows_of(rich_sqlite, "SELECT count(*) FROM audit WHERE what LIKE 'line %'")
    assert fired == rich_application.lines_added()
    assert set(sequences(rich_sqlite)) == {LINES, "audit"}
    ((unset,),) = rows_of(rich_sqlite, "SELECT count(*) FROM notes WHERE text = 'n'")
    assert unset == 0
    assert rows_of(rich_sqlite, "PRAGMA integrity_check") == [("ok",)]
    assert rows_of(rich_sqlite, "PRAGMA foreign_key_check") == []
    assert_right(rich_sqlite)


def test_the_schema_is_the_same_after_a_part_was_rebuilt(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    before = schema_of(rich_sqlite)
    with rich_application:
        for projector in PROJECTORS:
            rebuild_once(rich_sqlite, projector.__name__, [projector])
            assert schema_of(rich_sqlite) == before
    assert rich_application.failures == []
    assert_right(rich_sqlite)


def test_the_schema_is_the_same_after_a_switch_back_and_forth(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    before, counters = schema_of(rich_sqlite), sequences(rich_sqlite)
    made = run_of(rich_sqlite, "run")
    run_to(made, "reconcile")
    dialect = made._context.dialect
    tables = [TableSet.of(name, schema=None, limit=dialect.max_identifier) for name in (CUSTOMERS, ORDERS, LINES, TOTALS)]
    with_old = schema_of(rich_sqlite)
    for _ in range(2):
        with dialect.connect() as connection:
            with dialect.cutover.lock_tables(connection, tables, LockPolicy(LOCK_WAIT), []):
                for statement in dialect.restore_names(connection, tables):
                    dialect.run(connection, statement)
            for table in tables:
                assert dialect.shadow.index_green(connection, table) == []
            with dialect.cutover.lock_tables(connection, tables, LockPolicy(LOCK_WAIT), []):
                for statement in dialect.swap_statements(connection, tables).statements:
                    dialect.run(connection, statement)
            assert dialect.after_swap(connection, tables) == []
        assert schema_of(rich_sqlite) == with_old
    assert rows_of(rich_sqlite, "PRAGMA integrity_check") == [("ok",)]
    made.drop_old()
    assert schema_of(rich_sqlite) == before
    assert sequences(rich_sqlite) == counters


def test_a_connection_that_is_open_all_the_time_finds_everything(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    with rich_application.engine.connect() as connection:
        (count,) = connection.exec_driver_sql("SELECT count(*) FROM totals").one()
        connection.commit()
        rebuild_once(rich_sqlite, "run")
        assert connection.exec_driver_sql("SELECT count(*) FROM totals").one() == (count,)
        connection.exec_driver_sql(
            'INSERT INTO "Bücher.Lines ""x""" ("Order.Id", line, product, "100 %") SELECT id, 99, 1, 1 FROM "order" LIMIT 1'
        )
        assert (
            connection.exec_driver_sql("SELECT count(*) FROM audit WHERE what LIKE 'line %'").scalar_one()
            == rich_application.lines_added() + 1
        )
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN SELECT * FROM `order` WHERE year = 2026 AND status <> 'ON'").all()
        assert "ix_year" in str(plan)


def test_generated_ids_go_on(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql("UPDATE sqlite_sequence SET seq = 100000 WHERE name LIKE 'B%'")
    rebuild_once(rich_sqlite, "run")
    assert sequences(rich_sqlite)[LINES] == 100_000


def test_statistics_follow_and_none_appear_where_there_were_none(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    def statistics() -> list[tuple[object, ...]]:
        found = rows_of(rich_sqlite, "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY tbl, idx")
        return [row for row in found if "projection" not in str(row)]

    rebuild_once(rich_sqlite, "first")
    assert not [row for row in schema_of(rich_sqlite) if "sqlite_stat" in row[1]]
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    before = statistics()
    assert {row[0] for row in before} >= {CUSTOMERS, ORDERS, LINES}
    rebuild_once(rich_sqlite, "second")
    assert statistics() == before


def test_what_old_and_green_tables_hold_keeps_nobody_from_deleting(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    """Green lags behind and old stays behind: a foreign key of theirs would refuse what the live tables allow."""
    made = run_of(rich_sqlite, "run")
    order = 'SELECT min("Order.Id") FROM "Bücher.Lines ""x"""'

    def delete_an_order() -> None:
        with rich_application.engine.begin() as connection:
            doomed = connection.exec_driver_sql(order).scalar_one()
            connection.exec_driver_sql('UPDATE "order" SET first = NULL WHERE first = ?', (doomed,))
            connection.exec_driver_sql("DELETE FROM notes WHERE of = ?", (doomed,))
            connection.exec_driver_sql('DELETE FROM "Bücher.Lines ""x""" WHERE "Order.Id" = ?', (doomed,))
            connection.exec_driver_sql('DELETE FROM "order" WHERE id = ?', (doomed,))

    run_to(made, "verify")
    delete_an_order()
    made.swap()
    delete_an_order()
    made.reconcile()
    made.drop_old()


def test_rows_of_others_never_lose_their_parents(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO \"order\" (id, customer, status, placed_on) VALUES ('by hand', 1, 's', '2026-01-01')"
        )
        connection.exec_driver_sql("INSERT INTO notes (of) VALUES ('by hand')")
    before = schema_of(rich_sqlite)
    made = run_of(rich_sqlite, "run")
    run_to(made, "verify")
    with pytest.raises(VerificationFailed, match="1 rows of notes refer to rows of order"):
        made.swap()
    assert [row for row in schema_of(rich_sqlite) if "_rebuild" not in row[1]] == before


def changed_at(moment: str, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, statement: str) -> Rebuild:
    """A verified run, of which a live table is changed right now, or once it has been looked at."""
    made = run_of(engine, "run")
    run_to(made, "verify")
    if moment == "before the switch":
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    else:
        just_before(monkeypatch, engine, "lock_tables", statement)
    return made


@pytest.mark.parametrize("moment", ["before the switch", "at the last moment"])
def test_a_change_of_blue_is_not_taken_back_by_the_switch(
    rich_sqlite: sa.Engine, rich_application: Application, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    made = changed_at(moment, rich_sqlite, monkeypatch, "ALTER TABLE \"order\" ADD COLUMN extra TEXT NOT NULL DEFAULT 'x'")
    with pytest.raises(
        CloneError, match=r"order has been changed since order_rebuild was made like it.*its columns or constraints"
    ):
        made.swap()
    with rich_sqlite.connect() as connection:
        assert connection.exec_driver_sql('SELECT count(*) FROM "order"').scalar_one() > 0
    assert rows_of(rich_sqlite, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("moment", ["before the switch", "at the last moment"])
def test_an_index_that_blue_loses_meanwhile_goes_from_green_as_well(
    rich_sqlite: sa.Engine, rich_application: Application, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    made = changed_at(moment, rich_sqlite, monkeypatch, "DROP INDEX ix_year")
    made.swap()
    made.drop_old()
    assert rows_of(rich_sqlite, "SELECT name FROM sqlite_master WHERE name LIKE 'ix_year%'") == []
    assert rows_of(rich_sqlite, "PRAGMA integrity_check") == [("ok",)]


def test_a_rollback_does_not_take_back_a_change_either(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    run_to(run_of(rich_sqlite, "run"), "reconcile")
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql('ALTER TABLE "order" ADD COLUMN extra TEXT')
    back = run_of(rich_sqlite, "back")
    back.plan_rollback(RunOptions())
    back.bring_back()
    with pytest.raises(CloneError, match="its columns or constraints"):
        back.swap()


def test_an_index_that_blue_gets_meanwhile_is_made_on_green(rich_sqlite: sa.Engine, rich_application: Application) -> None:
    made = run_of(rich_sqlite, "run")
    run_to(made, "verify")
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql('CREATE INDEX ix_new ON "order" (placed_on) WHERE year > 2000')
    before = [each for each in schema_of(rich_sqlite) if "_rebuild" not in each[1]]
    made.swap()
    made.reconcile()
    made.drop_old()
    assert schema_of(rich_sqlite) == before


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("CREATE VIEW order_rebuild AS SELECT 1", r"order: the rebuild needs the name order_rebuild, .* the view"),
        ("CREATE INDEX ix_year_old ON audit (what)", r"order: the rebuild needs the name ix_year_old, .* the index"),
    ],
)
def test_names_that_others_have_taken_are_refused(rich_sqlite: sa.Engine, statement: str, words: str) -> None:
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql(statement)
    before = schema_of(rich_sqlite)
    with pytest.raises(PlanError, match=words):
        run_of(rich_sqlite, "run").plan(RunOptions())
    assert schema_of(rich_sqlite) == before


def test_a_virtual_table_is_refused(rich_sqlite: sa.Engine) -> None:
    with rich_sqlite.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = 0")
        connection.exec_driver_sql('DROP TABLE "Customers %s"')
        connection.exec_driver_sql('CREATE VIRTUAL TABLE "Customers %s" USING rtree("Customer Id", "Orders `placed`", z)')
    with pytest.raises(PlanError):
        run_of(rich_sqlite, "run").plan(RunOptions())


STATEMENT = """CREATE TABLE [We'ird "T] /* REFERENCES x */ (id INTEGER PRIMARY KEY, "references" text default 'REFERENCES y', -- REFERENCES z
 p int references"p""q"(id), q int REFERENCES/*c*/r ON DELETE CASCADE, foreign key (q) references [a b](x)) STRICT"""


def test_other_names_are_put_into_statements_and_nothing_else_changes() -> None:
    seen: list[str] = []

    def note(name: str) -> str:
        seen.append(name)
        return '"n"'

    changed = text.with_parents(text.with_table_name(STATEMENT, '"t"'), note)
    assert sorted(seen) == ["a b", 'p"q', "r"]
    assert changed == STATEMENT.replace("""[We'ird "T]""", '"t"').replace('"p""q"', '"n"').replace("/r", '/"n"').replace(
        "[a b]", '"n"'
    )
    assert text.table_name(STATEMENT) == """[We'ird "T]"""
    assert not text.counts("CREATE TABLE t (autoincrement_ int, b text default 'AUTOINCREMENT' /* AUTOINCREMENT */)")
    index = """CREATE UNIQUE INDEX "on" /* ON x */ ON[tab le]("on", lower(b)) WHERE 'ON' <> c"""
    assert (
        text.with_index_names(index, '"i"', '"t"')
        == """CREATE UNIQUE INDEX "i" /* ON x */ ON"t"("on", lower(b)) WHERE 'ON' <> c"""
    )
