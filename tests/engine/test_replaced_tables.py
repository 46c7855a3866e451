"""Another table in a live one's place: the switch tells it by name, before it and while the tables are held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.errors import CloneError
from projection_rebuild.ledger import RunState
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import execute, marked
from tests.engine.harness.driver import run_to, state_of
from tests.engine.harness.findings import findings_of, matching
from tests.engine.harness.seams import before_the_hold
from tests.engine.harness.shop import events
from tests.engine.harness.specs import ALONE, rebuild


def made_anew(engine: sa.Engine, table: str) -> None:
    """Renames a live table away, and makes another one of its name and definition."""
    execute(engine, f"ALTER TABLE {table} RENAME TO {table}_kept")
    if engine.dialect.name == "sqlite":
        # Names of indexes are the database's there.
        for index in sa.inspect(engine).get_indexes(f"{table}_kept"):
            execute(engine, f"DROP INDEX {index['name']}")
    elif engine.dialect.name == "postgresql":
        for index in sa.inspect(engine).get_indexes(f"{table}_kept"):
            execute(engine, f"ALTER INDEX {index['name']} RENAME TO {index['name']}_kept")
    else:
        execute(engine, f"ALTER TABLE {table}_kept DROP CONSTRAINT orders_chk_1") if table == "orders" else None
    shop.metadata.tables[table].create(engine)


def put_back(engine: sa.Engine, table: str) -> None:
    execute(engine, f"DROP TABLE {table}", f"ALTER TABLE {table}_kept RENAME TO {table}")
    for index in sa.inspect(engine).get_indexes(table):
        if engine.dialect.name == "postgresql":
            execute(engine, f"ALTER INDEX {index['name']} RENAME TO {str(index['name']).removesuffix('_kept')}")


def rest(made: Rebuild, after: str) -> None:
    """The steps up to the switch."""
    if after == "clone":
        for name in made.chosen():
            made.replay(name)
    if after != "verify":
        made.verify()
    made.swap()


@pytest.mark.parametrize("when", ["clone", "replay", "verify"])
def test_a_live_table_that_was_made_anew_is_told(shop_on_each: sa.Engine, when: str) -> None:
    made = rebuild(shop_on_each, **ALONE)
    run_to(made, when)
    made_anew(shop_on_each, "customer_totals")
    # On PostgreSQL every step tells it; elsewhere the switch does, and a verification after that says that it is meant.
    for after in (when, when if shop_on_each.dialect.name == "postgresql" else "verify"):
        with pytest.raises(CloneError, match=r"the live table customer_totals is another one than.*Put the former table back"):
            rest(made, after)
        assert not state_of(made).has_begun_switch
        assert {"customer_totals", "customer_totals_rebuild"} <= set(sa.inspect(shop_on_each).get_table_names())
    put_back(shop_on_each, "customer_totals")
    rest(made, when)
    made.reconcile()
    made.drop_old()


def test_what_the_refusal_says_brings_the_run_to_its_end(shop_on_each: sa.Engine) -> None:
    made = rebuild(shop_on_each, **ALONE)
    run_to(made, "verify")
    made_anew(shop_on_each, "customer_totals")
    with pytest.raises(CloneError) as refused:
        made.swap()
    by_id = shop_on_each.dialect.name == "postgresql"
    assert ("clear `clone_tables`" if by_id else "clear `verify_counts`") in str(refused.value)
    if by_id:
        made.clone_tables()
        for name in made.chosen():
            made.replay(name)
    made.verify()
    made.swap()
    made.reconcile()
    made.drop_old()


def test_a_table_that_is_put_there_right_before_the_lock_is_told_under_it(
    shop_on_each: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(shop_on_each, **ALONE)
    run_to(made, "verify")
    before_the_hold(monkeypatch, lambda: made_anew(shop_on_each, "customer_totals"))
    with pytest.raises(CloneError, match="the live table customer_totals is another one"):
        made.swap()
    monkeypatch.undo()
    assert state_of(made) is RunState.VERIFIED
    put_back(shop_on_each, "customer_totals")
    made.swap()
    made.reconcile()


def test_a_live_table_that_is_gone_is_told(shop_on_each: sa.Engine) -> None:
    made = rebuild(shop_on_each, **ALONE)
    run_to(made, "verify")
    execute(shop_on_each, "ALTER TABLE customer_totals RENAME TO customer_totals_kept")
    with pytest.raises(CloneError, match="the live table customer_totals is gone"):
        made.swap()
    execute(shop_on_each, "ALTER TABLE customer_totals_kept RENAME TO customer_totals")
    made.swap()


def test_two_tables_that_have_changed_their_names_are_told(shop_on_sqlite: sa.Engine) -> None:
    execute(shop_on_sqlite, "CREATE TABLE spare AS SELECT * FROM customer_totals")
    made = rebuild(shop_on_sqlite)
    run_to(made, "verify")
    execute(
        shop_on_sqlite,
        *(
            "ALTER TABLE customer_totals RENAME TO x",
            "ALTER TABLE spare RENAME TO customer_totals",
            "ALTER TABLE x RENAME TO spare",
        ),
    )
    with pytest.raises(CloneError, match="customer_totals"):
        made.swap()


def test_what_moves_a_table_is_named_in_the_refusal_and_costs_no_replay(shop_on_each: sa.Engine) -> None:
    made = rebuild(shop_on_each, **ALONE)
    if shop_on_each.dialect.name == "sqlite":
        # So that the pages behind it move.
        execute(shop_on_each, "CREATE TABLE filler (n TEXT)", "INSERT INTO filler VALUES (hex(randomblob(90000)))")
        execute(shop_on_each, "CREATE TABLE moved AS SELECT * FROM customer_totals", "DROP TABLE customer_totals")
        shop.metadata.tables["customer_totals"].create(shop_on_each)
    run_to(made, "verify")
    by_database = {
        "sqlite": ["DROP TABLE filler", "DROP TABLE moved", "VACUUM"],
        "postgresql": ["VACUUM FULL customer_totals", "TRUNCATE customer_totals"],
    }
    execute(shop_on_each, *by_database.get(shop_on_each.dialect.name, ["OPTIMIZE TABLE customer_totals"]))
    if shop_on_each.dialect.name != "postgresql":
        with pytest.raises(CloneError, match=r"VACUUM|OPTIMIZE"):
            made.swap()
        made.verify()
    made.swap()
    made.reconcile()


def test_a_rollback_looks_at_the_live_tables_as_well(shop_on_each: sa.Engine) -> None:
    run_to(rebuild(shop_on_each, **ALONE), "reconcile")
    back = rebuild(shop_on_each, run_id="back", **ALONE)
    back.plan_rollback(RunOptions())
    back.bring_back()
    made_anew(shop_on_each, "customer_totals")
    with pytest.raises(CloneError, match="or trigger the rollback anew"):
        back.bring_back()
        back.swap()
    put_back(shop_on_each, "customer_totals")
    back.swap()
    back.reconcile()
    forth = rebuild(shop_on_each, run_id="forth", **ALONE)
    forth.plan_rollback(RunOptions())
    forth.bring_back()
    forth.swap()


def test_a_run_of_the_version_before_knows_no_identities_and_switches(shop_on_sqlite: sa.Engine) -> None:
    made = rebuild(shop_on_sqlite)
    run_to(made, "verify")
    ledger = made._context.ledger
    with made._context.dialect.connect() as connection:
        record: Any = {key: each for key, each in ledger.over(connection, "run").runs.get().stored.items() if "tables" not in key}
        ledger.over(connection, "run").runs.begin("shop", record)
        for state in (RunState.CLONED, RunState.VERIFIED):
            ledger.over(connection, "run").runs.move(state)
    made.swap()


@pytest.mark.mysql
@pytest.mark.mariadb
@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_who_is_not_told_which_table_it_is_learns_that_in_the_plan(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    url = new_database(kind)
    root = sa.create_engine(url)
    shop.metadata.create_all(root)
    user = f"blind_{url.database}"[-30:]
    execute(
        root,
        f"CREATE USER '{user}' IDENTIFIED BY 'x'",
        f"GRANT ALL ON `{url.database}`.* TO '{user}'",
        f"GRANT RELOAD ON *.* TO '{user}'",
    )
    blind = sa.create_engine(url.set(username=user, password="x"))  # noqa: S106 - a test's own
    try:
        told = matching(findings_of(blind), "not told which table", "customer_totals")
        assert not told.refuses
        made = rebuild(blind)
        run_to(made, "reconcile")
    finally:
        blind.dispose()
        execute(root, f"DROP USER '{user}'")
        root.dispose()


def test_a_table_that_was_altered_is_told_as_that_and_green_may_be_altered_as_well(shop_on_each: sa.Engine) -> None:
    made = rebuild(shop_on_each, **ALONE)
    run_to(made, "verify")
    execute(shop_on_each, "ALTER TABLE customer_totals ADD COLUMN more INTEGER")
    with pytest.raises(
        CloneError, match="customer_totals has been changed since customer_totals_rebuild was made like it"
    ) as told:
        made.swap()
    execute(shop_on_each, "ALTER TABLE customer_totals_rebuild ADD COLUMN more INTEGER")
    if "clear `verify_counts`" in str(told.value):
        # MySQL makes another table of the altered one.
        assert shop_on_each.dialect.name == "mysql"
        made.verify()
    made.swap()
    made.reconcile()


@pytest.mark.parametrize("kind", marked("mysql", "mariadb"))
def test_an_alter_that_copies_the_table_is_told_as_that(kind: str, new_database: Callable[[str], sa.URL]) -> None:
    engine = sa.create_engine(new_database(kind))
    shop.metadata.create_all(engine)
    made = rebuild(engine)
    run_to(made, "verify")
    copies = "ADD COLUMN more INTEGER, ALGORITHM = COPY"
    execute(engine, f"ALTER TABLE customer_totals {copies}")
    words = "customer_totals has been changed since customer_totals_rebuild was made like it(.|\n)*clear `verify_counts`"
    with pytest.raises(CloneError, match=words):
        made.swap()
    # What it says is enough.
    execute(engine, f"ALTER TABLE customer_totals_rebuild {copies}")
    made.verify()
    made.swap()
    made.reconcile()
    engine.dispose()


@pytest.mark.parametrize("mode", ["FULL", "INCREMENTAL"])
def test_a_file_with_auto_vacuum_moves_tables_and_nobody_has_replaced_them(sqlite_url: sa.URL, mode: str) -> None:
    engine = sa.create_engine(sqlite_url)
    fillers = [f"filler_{number}" for number in range(40)]
    execute(engine, f"PRAGMA auto_vacuum = {mode}", *(f"CREATE TABLE {each} (n INT)" for each in fillers))
    shop.fill(engine, events(300))
    assert not matching(findings_of(engine), "with auto_vacuum SQLite does not show which table", "customer_totals").refuses
    made = rebuild(engine)
    run_to(made, "verify")
    before = pages(engine)
    # A table that is dropped leaves its page to the one that has the last page.
    execute(engine, *(f"DROP TABLE {each}" for each in fillers))
    assert {name for name, page in pages(engine).items() if page != before[name]} & {"orders", "customer_totals", "order_lines"}
    made.swap()
    made.reconcile()
    execute(engine, "CREATE TABLE third (n INT)", "DROP TABLE third")
    assert set(made.drop_old()) == {"orders_old", "customer_totals_old", "order_lines_old"}
    engine.dispose()


def pages(engine: sa.Engine) -> dict[str, int]:
    """The first page of each table and index of a SQLite file."""
    with engine.connect() as connection:
        return {name: page for name, page in connection.exec_driver_sql("SELECT name, rootpage FROM sqlite_master").all()}
