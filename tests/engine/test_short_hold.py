"""What is done while writers are held: few statements, whose cost does not grow with the server, and an end to all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.cutover import attempt, pause
from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import DatabaseTrouble, SwapNotPossible
from projection_rebuild.eventstore.store import EventStore
from tests.engine.harness.clocks import ShiftedClock
from tests.engine.harness.databases import execute
from tests.engine.harness.driver import run_to, state_of
from tests.engine.harness.seams import after_the_hold, around_the_drain
from tests.engine.harness.specs import ALONE, rebuild

# Which table a live one is -------------------------------------------------------------------------------------------


@contextmanager
def _statements(engine: sa.Engine) -> Iterator[list[str]]:
    """What is executed meanwhile."""
    seen: list[str] = []

    def see(_: object, __: object, statement: str, *___: object) -> None:
        seen.append(statement)

    sa.event.listen(engine, "before_cursor_execute", see)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", see)


@pytest.mark.postgres
def test_one_question_tells_all_tables_apart_on_postgresql(postgres_url: sa.URL) -> None:
    engine = sa.create_engine(postgres_url)
    names = ["plain", "Mixed Case", "per%cent", "größe", 'quo"te', "a,b", "{a}"]
    quoted = engine.dialect.identifier_preparer.quote_identifier
    execute(
        engine,
        *(f"CREATE TABLE {quoted(name)} (id INT)" for name in names),
        "CREATE SCHEMA other",
        "CREATE TABLE other.plain (id INT)",
    )
    dialect = dialect_for(engine)
    with dialect.connect() as connection:
        alone = {name: dialect.inspector.identity(connection, "public", name) for name in [*names, "not there"]}
        with _statements(engine) as seen:
            assert dialect.inspector.identities(connection, "public", [*names, "not there"]) == alone
        assert len(seen) == 1
        assert dialect.inspector.identities(connection, "other", ["plain"])["plain"] not in (None, alone["plain"])
        assert dialect.inspector.identities(connection, "public", []) == {}
    assert alone["not there"] is None and None not in [alone[name] for name in names]
    engine.dispose()


NAMES = ["plain", "mit-strich", "größe", "a`b", "per%cent"]


@pytest.mark.mysql
def test_the_question_costs_the_same_on_a_mysql_with_many_tables(mysql_url: sa.URL) -> None:
    engine = sa.create_engine(mysql_url)
    execute(engine, *(f"CREATE TABLE {_quoted(name)} (id INT PRIMARY KEY)" for name in NAMES))
    dialect = dialect_for(engine)

    def rows() -> int:
        """How many rows the server has looked at, or put into tables of its own, for one answer."""
        with dialect.connect() as connection:
            dialect.inspector.identities(connection, None, NAMES)
            connection.exec_driver_sql("FLUSH STATUS")
            dialect.inspector.identities(connection, None, NAMES)
            counted = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler\\_%%'").all()
        return sum(int(number) for name, number in counted if name.startswith(("Handler_read", "Handler_write")))

    few = rows()
    execute(engine, *(f"CREATE TABLE other_{number} (id INT PRIMARY KEY)" for number in range(60)))
    assert rows() < few + 30
    engine.dispose()


@pytest.mark.mysql
def test_a_mysql_table_keeps_its_identity_as_long_as_it_is_the_same(mysql_url: sa.URL) -> None:
    engine = sa.create_engine(mysql_url)
    kinds = {"own": "", "shared": " TABLESPACE innodb_system", "parted": " PARTITION BY HASH (id) PARTITIONS 2"}
    dialect = dialect_for(engine)

    def now(name: str) -> str | None:
        with dialect.connect() as connection:
            return dialect.inspector.identities(connection, None, [name])[name]

    for kind, clause in kinds.items():
        for name in (each if kind == "own" else f"{kind} {each}" for each in NAMES if kind == "own" or each.isascii()):
            table, away = _quoted(name), _quoted(f"{name} away")
            execute(engine, f"CREATE TABLE {table} (id INT PRIMARY KEY){clause}")
            first = now(name)
            assert first is not None
            execute(engine, f"RENAME TABLE {table} TO {away}", f"CREATE TABLE {table} (id INT PRIMARY KEY){clause}")
            assert now(name) not in (None, first)
            execute(engine, f"DROP TABLE {table}")
            assert now(name) is None
            execute(engine, f"RENAME TABLE {away} TO {table}", f"ALTER TABLE {table} COMMENT 'the same'")
            assert now(name) == first
            execute(engine, f"TRUNCATE {table}")
            assert now(name) not in (None, first)
            execute(engine, f"DROP TABLE {table}", f"CREATE TABLE {table} (id INT PRIMARY KEY){clause}")
            assert now(name) not in (None, first)
    engine.dispose()


def _quoted(name: str) -> str:
    return f"`{name.replace('`', '``').replace('%', '%%')}`"


# Its bound -----------------------------------------------------------------------------------------------------------


def test_an_attempt_that_looks_at_the_tables_for_too_long_is_undone(
    shop_on_each: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(shop_on_each, **ALONE, swap={"attempts": 2})
    run_to(made, "verify")
    clock, look = ShiftedClock(), attempt.refuse_replaced
    held: list[bool] = []

    def slow(*args: Any) -> None:
        look(*args)
        if held:
            clock.ahead += made._context.spec.swap.max_pause.total_seconds() + 1

    monkeypatch.setattr(pause, "time", clock)
    after_the_hold(monkeypatch, lambda: held.append(True))
    monkeypatch.setattr(attempt, "refuse_replaced", slow)
    with pytest.raises(SwapNotPossible):
        made.swap()
    assert not state_of(made).has_switched
    monkeypatch.undo()
    made.swap()
    made.reconcile()
    made.close()


# The event store's connection ----------------------------------------------------------------------------------------


def test_no_connection_to_the_store_is_made_while_the_tables_are_held(
    shop_on_each: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(shop_on_each, **ALONE)
    run_to(made, "verify")
    took: list[list[bool]] = []

    @contextmanager
    def watched() -> Iterator[None]:
        with _connects(made._context.store) as found:
            took.append(found)
            yield

    around_the_drain(monkeypatch, watched)
    made.swap()
    assert took and not any(took)
    made.reconcile()
    made.close()


@pytest.fixture
def store(shop_on_each: sa.Engine) -> Iterator[EventStore]:
    """The shop's store, whose engine counts what is taken out of its pool."""
    made = rebuild(shop_on_each, **ALONE)
    yield made._context.store
    made.close()


def _taken(store: EventStore) -> int:
    return int(store.dialect.engine.pool.checkedout())  # type: ignore[attr-defined]


def test_readings_in_a_hurry_share_a_connection_and_give_it_back(store: EventStore) -> None:
    plain = store.newest(), store.counts(None, store.newest())
    with store.in_a_hurry(timedelta(seconds=1)):
        assert _taken(store) == 1
        with _connects(store) as made:
            assert (store.newest(), store.counts(None, store.newest())) == plain
            assert store.first() == 1
        assert not made and _taken(store) == 1
    assert _taken(store) == 0
    assert store.newest() == plain[0]


def test_a_reading_within_another_one_has_a_connection_of_its_own(store: EventStore) -> None:
    types = store.types()
    wanted = [event.position for events, _ in store.pages(None, store.newest(), types, size=7) for event in events]
    with store.in_a_hurry(timedelta(seconds=1)):
        read = []
        with closing(store.pages(None, store.newest(), types, size=7)) as pages:
            for events, _ in pages:
                read += [event.position for event in events]
                assert store.newest() == wanted[-1]
        assert read == wanted
        # Given up halfway: what is left of its rows meets nobody.
        with closing(store.pages(None, store.newest(), types, size=7)) as pages:
            next(pages)
        assert store.first() == wanted[0]
    assert _taken(store) == 0


def test_a_reading_after_a_lost_connection_has_another_one(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = store.newest()
    with store.in_a_hurry(timedelta(seconds=1)):
        with monkeypatch.context() as patched:
            patched.setattr(type(store.dialect), "newest_position", _cut)
            with pytest.raises(DatabaseTrouble):
                store.newest()
        assert store.newest() == newest
        assert _taken(store) == 1
    assert _taken(store) == 0


KILL: dict[str, str] = {"postgresql": "SELECT pg_terminate_backend(pg_backend_pid())", "mysql": "KILL CONNECTION_ID()"}


def _cut(self: Any, connection: sa.Connection, *_: object) -> None:
    """Has the server end the connection, or, where there is none, a statement fail."""
    connection.exec_driver_sql(KILL.get(connection.dialect.name, "SELECT nothing FROM nowhere"))


def test_an_error_in_a_hurry_gives_all_connections_back(store: EventStore) -> None:
    with pytest.raises(KeyError), store.in_a_hurry(timedelta(seconds=1)):
        store.newest()
        raise KeyError
    assert _taken(store) == 0
    assert store.newest() is not None


@contextmanager
def _connects(store: EventStore) -> Iterator[list[bool]]:
    made: list[bool] = []

    def see(*_: object) -> None:
        made.append(True)

    sa.event.listen(store.dialect.engine, "engine_connect", see)
    try:
        yield made
    finally:
        sa.event.remove(store.dialect.engine, "engine_connect", see)


LIMIT: dict[str, Callable[[sa.Connection], object]] = {
    "postgresql": lambda connection: connection.exec_driver_sql("SHOW lock_timeout").scalar(),
    "mysql": lambda connection: connection.exec_driver_sql("SELECT @@session.lock_wait_timeout").scalar(),
    "sqlite": lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout").scalar(),
}


def test_every_connection_in_a_hurry_waits_for_no_lock_for_longer(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = LIMIT[store.dialect.engine.dialect.name]
    seen: list[object] = []

    def look(self: Any, connection: sa.Connection, *_: object) -> None:
        seen.append(limit(connection))

    monkeypatch.setattr(type(store.dialect), "newest_position", look)
    store.newest()
    with store.in_a_hurry(timedelta(milliseconds=300)):
        store.newest()
        with store._connected():
            store.newest()
    store.newest()
    usual, first, second, after = seen
    assert first == second in ("300ms", 1, 300)
    assert usual == after != first
