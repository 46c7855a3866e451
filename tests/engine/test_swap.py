"""The swap among transactions that are older, or slower, than it would like them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.cutover import retired_names, waits
from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Dialect, HeldTables, LockOrder, LockPolicy, PreparedSwap, TablesBusy
from projection_rebuild.dialects.mariadb.dialect import MariaDBDialect
from projection_rebuild.dialects.mariadb.fenced_rename import FencedTables
from projection_rebuild.dialects.mariadb.sentries import SENTRY_TABLE
from projection_rebuild.dialects.mysql.locked_tables import LockedTables
from projection_rebuild.errors import (
    ClaimRefused,
    CloneError,
    FencedOut,
    FenceLost,
    Interrupted,
    StepOrderError,
    SwapNotPossible,
    VerificationFailed,
)
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.model.names import TableSet
from projection_rebuild.replay.catch_up import CatchUp
from projection_rebuild.run.step import Step
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.clients import append, project
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.seams import before_each_statement, before_the_drain, instead_of_finishing_the_switch, just_before
from tests.engine.harness.shop import TABLES, actual, events, expected, tables
from tests.engine.harness.specs import rebuild
from tests.engine.harness.writers import CHECKPOINTED

STORED = events(500)
LATE = [each for each in events(600)[500:] if each["event_class"] == "OrderPlaced"][:3]


def _prepared(engine: sa.Engine) -> sa.Engine:
    shop.fill(engine, STORED)
    run_to(rebuild(engine, "fill"), "drop")
    return engine


@pytest.fixture
def server(server_kind: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    """A database on each server, its read models filled."""
    engine = sa.create_engine(new_database(server_kind), poolclass=sa.NullPool)
    yield _prepared(engine)
    engine.dispose()


@pytest.fixture
def mysql_family(family: str, new_database: Callable[[str], sa.URL]) -> Iterator[sa.Engine]:
    """As ``server``, where a fence is needed."""
    engine = sa.create_engine(new_database(family), poolclass=sa.NullPool)
    yield _prepared(engine)
    engine.dispose()


def older(engine: sa.Engine, level: str = "REPEATABLE READ") -> sa.Connection:
    """A transaction that has looked at something else."""
    connection = engine.connect().execution_options(isolation_level=level)
    connection.exec_driver_sql("SELECT count(*) FROM stored_events").scalar_one()
    return connection


def orders(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one())


def test_an_older_snapshot_is_waited_for_and_never_finds_an_empty_table(server: sa.Engine) -> None:
    made = rebuild(server)
    made.plan(RunOptions())
    snapshot = older(server)
    found: list[int] = []

    def ends_later() -> None:
        time.sleep(0.7)
        found.append(orders(snapshot))
        snapshot.close()

    run_rest = [made.clone_tables, *(lambda name=name: made.replay(name) for name in made.chosen()), made.verify]  # type: ignore[misc]
    for step in run_rest:
        step()
    client = threading.Thread(target=ends_later)
    client.start()
    made.swap()
    client.join()
    assert found == [len(expected(STORED)["orders"])]


def test_without_the_wait_an_older_snapshot_finds_nothing(server: sa.Engine) -> None:
    """On the MySQL family it is told so, if it is older than green's last index, too."""
    made = rebuild(server, swap={"wait_for_snapshots": "0s"})
    run_to(made, "clone")
    with older(server) as snapshot:
        for name in made.chosen():
            made.replay(name)
        made.verify()
        made.swap()
        try:
            assert orders(snapshot) == 0
        except sa.exc.OperationalError as error:
            assert "Table definition has changed" in str(error.orig)


def test_a_snapshot_that_stays_is_named_and_nothing_is_switched(server: sa.Engine) -> None:
    made = rebuild(server, swap={"wait_for_snapshots": "300ms"})
    run_to(made, "verify")
    with older(server), pytest.raises(SwapNotPossible, match=r"older than the green tables.*session"):
        made.swap()
    assert actual(server) == expected(STORED)
    made.swap()
    assert actual(server) == expected(STORED)


def test_a_snapshot_that_was_taken_in_one_message_is_waited_for(postgres: sa.Engine) -> None:
    """The transaction and its first query then began at the same time."""
    made = rebuild(postgres, swap={"wait_for_snapshots": "300ms"})
    run_to(made, "verify")
    with postgres.connect().execution_options(isolation_level="AUTOCOMMIT") as snapshot:
        driver: Any = snapshot.connection.driver_connection
        driver.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM stored_events")
        with pytest.raises(SwapNotPossible, match=r"older than the green tables.*idle in transaction"):
            made.swap()


def test_read_committed_transactions_are_not_waited_for(server: sa.Engine) -> None:
    made = rebuild(server, swap={"wait_for_snapshots": "5s"})
    run_to(made, "verify")
    with older(server, "READ COMMITTED") as idle:
        made.swap()
        assert orders(idle) == len(expected(STORED)["orders"])


def test_a_transaction_that_has_read_a_table_leads_to_attempts_and_not_to_a_queue(server: sa.Engine) -> None:
    made = rebuild(server, swap={"attempts": 3})
    run_to(made, "verify")
    longest = 0.0
    stop = threading.Event()

    def reads() -> None:
        nonlocal longest
        while not stop.is_set():
            began = time.monotonic()
            with server.connect() as connection:
                orders(connection)
            longest = max(longest, time.monotonic() - began)

    reader = threading.Thread(target=reads)
    with server.connect().execution_options(isolation_level="READ COMMITTED") as idle:
        orders(idle)
        reader.start()
        with pytest.raises(SwapNotPossible, match="could not be locked in time"):
            made.swap()
        stop.set()
        reader.join()
        assert orders(idle) > 0
    # The attempts took longer than any reader had to wait.
    made.swap()
    assert actual(server) == expected(STORED)


def test_a_stopped_switch_does_not_go_on_with_its_next_attempt(server: sa.Engine) -> None:
    made = rebuild(server)
    run_to(made, "verify")
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(True)
        return len(asked) > 1

    with server.connect().execution_options(isolation_level="READ COMMITTED") as idle:
        orders(idle)
        with pytest.raises(Interrupted):
            made.swap(stopped=stopped)
    assert len(asked) == 2
    made.swap()
    assert actual(server) == expected(STORED)


def _cut_idle_connections(engine: sa.Engine, spare: int | None = None) -> int:
    """Cuts the connections that hold something and execute nothing, the fence's among them; returns their number."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep' AND DB = DATABASE() AND ID <> CONNECTION_ID()"
        ).scalars()
        ids = [each for each in found if each != spare]
        for each in ids:
            connection.exec_driver_sql(f"KILL {each}")
    return len(ids)


def test_a_fence_that_is_cut_before_the_switch_only_costs_an_attempt(
    mysql_family: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {"contract": "detached", "drain_check": "SELECT 0"}
    made = rebuild(mysql_family, live_writer=nobody, swap={"attempts": 5})
    run_to(made, "verify")
    cut = []

    for held in (LockedTables, FencedTables):

        def with_a_cut_fence(self: Any, *swap: Any, original: Any = held.run_swap) -> bool:
            if not cut:
                cut.append(_cut_idle_connections(mysql_family, spare=self._dialect.session_id(self._connection)))
            return bool(original(self, *swap))

        monkeypatch.setattr(held, "run_swap", with_a_cut_fence)
    result = made.swap()
    assert cut[0] >= 1 and result.attempts == 2 and result.in_doubt == 0
    made.reconcile()
    assert actual(mysql_family) == expected(STORED)


@pytest.mark.mariadb
def test_events_in_doubt_are_counted_and_reported(new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB: the fence dies while the RENAME is under way, and somebody appends before it is through."""
    engine = _prepared(sa.create_engine(new_database("mariadb"), poolclass=sa.NullPool))
    made = rebuild(engine)
    run_to(made, "verify")
    original = FencedTables.run_swap

    def dies_meanwhile(self: FencedTables, *swap: Any) -> bool:
        original(self, *swap)
        _cut_idle_connections(engine, spare=self._dialect.session_id(self._connection))
        with engine.begin() as connection:
            connection.execute(shop.stored_events.insert(), LATE)
        return False

    monkeypatch.setattr(FencedTables, "run_swap", dies_meanwhile)
    assert made.swap().in_doubt == 3
    with pytest.raises(FenceLost, match="3 events above position 500"):
        made.reconcile()
    monkeypatch.undo()
    # The tables are free for the rebuild that puts it right.
    run_to(rebuild(engine, "again"), "drop")
    assert actual(engine) == expected([*STORED, *LATE])


@pytest.fixture
def postgres(postgres_url: sa.URL) -> Iterator[sa.Engine]:
    """A database on PostgreSQL, its read models filled."""
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    yield _prepared(engine)
    engine.dispose()


def test_a_switch_that_is_not_possible_costs_no_rollback(postgres: sa.Engine) -> None:
    run_to(rebuild(postgres, "last week's"), "reconcile")
    made = rebuild(postgres, swap={"attempts": 2})
    run_to(made, "verify")
    with postgres.connect() as idle:
        orders(idle)
        with pytest.raises(SwapNotPossible):
            made.swap()
    assert actual(postgres, "_old") == expected(STORED)
    assert rebuild(postgres, "back").plan_rollback(RunOptions(dry_run=True)).rolls_back == "last week's"
    made.swap()
    made.reconcile()
    assert rebuild(postgres, "back").plan_rollback(RunOptions(dry_run=True)).rolls_back == "run"
    made.drop_old()
    assert tables(postgres) == {"stored_events", *TABLES}


@pytest.mark.mariadb
def test_a_switch_that_waits_in_vain_costs_no_rollback(mariadb_url: sa.URL) -> None:
    engine = _prepared(sa.create_engine(mariadb_url, poolclass=sa.NullPool))
    run_to(rebuild(engine, "last week's"), "reconcile")
    made = rebuild(engine, swap={"wait_for_snapshots": "300ms"})
    run_to(made, "verify")
    with older(engine), pytest.raises(SwapNotPossible):
        made.swap()
    assert actual(engine, "_old") == expected(STORED)
    made.swap()
    engine.dispose()


def test_a_vacuum_is_waited_for_and_named(postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    said_first, ended = "waiting until the tables have been maintained", []

    def heard(said: str) -> None:
        if said_first in said:
            connection.rollback()
            ended.append(said)

    made = rebuild(postgres, log=heard)
    run_to(made, "verify")
    with postgres.connect() as connection:
        visible = "SELECT relallvisible > 0 FROM pg_class WHERE relname = 'order_lines_rebuild'"
        assert connection.exec_driver_sql(visible).scalar_one()
        # As a VACUUM holds it, which nobody could keep from ending.
        connection.exec_driver_sql("LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE")
        with monkeypatch.context() as patch, pytest.raises(SwapNotPossible, match=r"maintained: session \d+ \(LOCK.*on orders"):
            patch.setattr(waits, "MAINTENANCE", timedelta(0))
            made.swap()
        assert not ended
        assert made.swap().attempts == 1 and len(ended) == 1


def test_what_hangs_on_a_table_since_the_last_look_goes_with_its_name(
    postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(postgres)
    run_to(made, "verify")
    just_before(
        monkeypatch,
        postgres,
        "lock_tables",
        "CREATE VIEW few_orders AS SELECT id FROM orders LIMIT 3",
        "CREATE TRIGGER kept BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )
    assert made.swap().attempts == 2
    made.reconcile()
    made.drop_old()
    with postgres.connect() as connection:
        triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal"
        assert connection.exec_driver_sql(triggers).scalars().all() == ["kept"]
        assert len(connection.exec_driver_sql("SELECT * FROM few_orders").all()) == 3


def test_a_privilege_that_is_granted_since_the_last_look_is_not_lost(
    postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rebuild(postgres)
    run_to(made, "verify")
    just_before(monkeypatch, postgres, "lock_tables", "GRANT SELECT ON orders TO PUBLIC")
    with pytest.raises(CloneError, match="privilege SELECT"):
        made.swap()


@pytest.fixture
def noted(sqlite_url: sa.URL) -> Iterator[sa.Engine]:
    """SQLite, with a table outside of the run whose rows refer to orders."""
    engine = _prepared(sa.create_engine(sqlite_url))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, of TEXT REFERENCES orders (id))")
    yield engine
    engine.dispose()


def test_a_row_that_refers_to_a_new_order_does_not_hinder_the_switch(noted: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(noted)
    run_to(made, "verify")
    note = f"INSERT INTO notes (of) VALUES ('{LATE[0]['aggregate_uuid']}')"
    just_before(monkeypatch, noted, "swap_statements", note, late=LATE[:1])
    made.swap()
    assert actual(noted) == expected([*STORED, LATE[0]])


def test_a_row_that_would_lose_its_parent_is_found_at_the_last_moment(noted: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(noted)
    with noted.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO orders (id, customer, status, placed_on) VALUES ('by hand', 1, 's', '2026-01-01')"
        )
    run_to(made, "verify")
    just_before(monkeypatch, noted, "lock_tables", "INSERT INTO notes (of) VALUES ('by hand')")
    with pytest.raises(VerificationFailed, match="1 rows of notes refer to rows of orders"):
        made.swap()
    with noted.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM orders WHERE id = 'by hand'").scalar_one() == 1


@pytest.mark.parametrize(("max_pause", "attempts"), [("3s", 1), ("300ms", 2)])
def test_the_server_ends_only_a_pause_that_is_too_long_and_the_next_attempt_goes_on(
    postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch, max_pause: str, attempts: int
) -> None:
    made = rebuild(postgres, swap={"max_pause": max_pause})
    run_to(made, "verify")
    drained: list[bool] = []

    def slowly_at_first() -> None:
        drained.append(True)
        if len(drained) == 1:
            time.sleep(0.7)

    before_the_drain(monkeypatch, slowly_at_first)
    assert made.swap().attempts == len(drained) == attempts
    assert actual(postgres) == expected(STORED)


def test_a_pause_that_is_too_long_at_the_last_attempt_is_said(postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(postgres, swap={"max_pause": "200ms", "attempts": 1})
    run_to(made, "verify")
    with monkeypatch.context() as patch:
        before_the_drain(patch, lambda: time.sleep(0.5))
        with pytest.raises(SwapNotPossible, match=r"the pause grew too long \(ms: lock \d+, drain [5-9]\d\d,"):
            made.swap()
    assert actual(postgres) == expected(STORED)


def test_a_connection_that_is_cut_at_the_last_attempt_is_said(postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(postgres, swap={"attempts": 1})
    run_to(made, "verify")

    def cut() -> None:
        with postgres.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND state = 'idle in transaction' AND application_name LIKE 'projection_rebuild%%'"
            )

    with monkeypatch.context() as patch:
        before_the_drain(patch, cut)
        with pytest.raises(SwapNotPossible, match="the connection that held the tables was cut"):
            made.swap()
    assert actual(postgres) == expected(STORED)


@pytest.mark.mysql
def test_an_append_that_was_open_during_an_undone_attempt_is_not_missed(
    new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain went past it, and stays where DDL commits by itself; the next attempt looks for it once more."""
    engine = _prepared(sa.create_engine(new_database("mysql"), poolclass=sa.NullPool))
    made = rebuild(engine, swap={"attempts": 1, "wait_for_snapshots": "0s"})
    run_to(made, "verify")

    def busy(*_: Any) -> bool:
        raise TablesBusy

    with engine.connect().execution_options(isolation_level="READ COMMITTED") as slow:
        position = slow.execute(shop.stored_events.insert().values(**LATE[0])).inserted_primary_key[0]  # type: ignore[index]
        append(engine, LATE[1:2])
        with monkeypatch.context() as patch:
            patch.setattr(EventStore, "settled_head", lambda self: position - 1)
            patch.setattr(LockedTables, "run_swap", busy)
            with pytest.raises(SwapNotPossible):
                made.swap()
        project(slow, position, LATE[0])
        slow.commit()
    made.swap()
    assert actual(engine) == expected([*STORED, *LATE[:2]])


class Died(BaseException):
    """Stands for a worker that is gone."""


def dies(*_: Any) -> None:
    raise Died


@pytest.mark.mariadb
@pytest.mark.parametrize("state", ["switching", "switched"])
def test_a_run_that_died_at_its_switch_is_finished_before_another_begins(
    mariadb_url: sa.URL, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Foreign keys to tables outside of the run are on the retired tables only, until they are made once more."""
    engine = _prepared(sa.create_engine(mariadb_url, poolclass=sa.NullPool))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE products (name varchar(100) PRIMARY KEY)")
        connection.exec_driver_sql("INSERT INTO products SELECT DISTINCT product FROM order_lines")
        connection.exec_driver_sql(
            "ALTER TABLE order_lines ADD CONSTRAINT fk_product FOREIGN KEY (product) REFERENCES products (name)"
        )
    dead = rebuild(engine, "dead")
    run_to(dead, "verify")
    with monkeypatch.context() as patch:
        if state == "switching":
            instead_of_finishing_the_switch(patch, dies)
            with pytest.raises(Died):
                dead.swap()
        else:
            instead_of_finishing_the_switch(patch, lambda: None)
            dead.swap()
    assert dead.report().state == state
    with pytest.raises(StepOrderError, match="cannot begin anew"):
        dead.plan(RunOptions())
    made = rebuild(engine, "heir")
    made.plan(RunOptions(), is_over=lambda run: run == "dead")
    assert dead.report().state == "reconciled"
    for step in (made.clone_tables, *(lambda name=name: made.replay(name) for name in made.chosen())):  # type: ignore[misc]
        step()
    for step in (made.verify, made.swap, made.reconcile, made.drop_old):
        step()
    keys = {each["name"] for each in sa.inspect(engine).get_foreign_keys("order_lines")}
    assert keys == {"fk_lines_order", "fk_product"} and actual(engine) == expected(STORED)
    engine.dispose()


def test_a_switch_of_a_worker_whose_place_another_has_taken_ends(postgres: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its consumers would go on from a position that green has passed."""
    with postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE consumers (name varchar(50) PRIMARY KEY, position bigint NOT NULL)")
        connection.exec_driver_sql("INSERT INTO consumers VALUES ('shop', 0)")
    made = rebuild(postgres, live_writer=CHECKPOINTED)
    run_to(made, "verify")

    def late() -> None:
        with postgres.begin() as connection:
            connection.execute(shop.stored_events.insert(), LATE[:2])
        context = rebuild(postgres, live_writer=CHECKPOINTED)._context
        with context.dialect.connect() as connection:
            step = Step(context, connection)
            CatchUp(step, step.plan).catch_up()

    with monkeypatch.context() as patch:
        before_the_drain(patch, late)
        with pytest.raises(FencedOut):
            made.swap()
    made.swap()
    with postgres.connect() as connection:
        newest = connection.exec_driver_sql("SELECT max(id) FROM stored_events").scalar_one()
        assert connection.exec_driver_sql("SELECT position FROM consumers").scalar_one() == newest


@pytest.mark.mariadb
def test_nobody_judges_a_switch_that_another_worker_is_within(mariadb_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its RENAME may still be to come, whatever the tables look like now."""
    engine = _prepared(sa.create_engine(mariadb_url, poolclass=sa.NullPool))
    run_to(rebuild(engine), "verify")
    run_swap, looked = FencedTables.run_swap, []

    def beside(held: FencedTables, *given: Any) -> bool:
        with pytest.raises(SwapNotPossible, match="another worker"):
            rebuild(engine, swap={"max_pause": "300ms"}).swap()
        looked.append(given)
        return run_swap(held, *given)

    with monkeypatch.context() as patch:
        patch.setattr(FencedTables, "run_swap", beside)
        rebuild(engine).swap()
    assert looked and actual(engine) == expected(STORED)
    assert rebuild(engine).swap().tables == [*TABLES]
    engine.dispose()


@pytest.mark.mariadb
def test_the_server_cuts_a_worker_that_hangs_within_its_switch(mariadb_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _prepared(sa.create_engine(mariadb_url, poolclass=sa.NullPool))
    run_to(rebuild(engine), "verify")
    run_swap, heirs = FencedTables.run_swap, []

    def hangs(held: FencedTables, *given: Any) -> bool:
        if not heirs:
            heirs.append(rebuild(engine, swap={"max_pause": "2s"}))
            # As long as it hangs, and no longer than the server lets it, nobody else decides.
            heirs[0].swap()
        return run_swap(held, *given)

    monkeypatch.setattr(FencedTables, "run_swap", hangs)
    result = rebuild(engine, swap={"max_pause": "500ms"}).swap()
    assert heirs and result.tables == [*TABLES] and actual(engine) == expected(STORED)
    engine.dispose()


@pytest.mark.parametrize("step", ["replay", "shard"])
def test_nothing_is_replayed_before_the_side_of_a_switch_is_known(sqlite_url: sa.URL, step: str) -> None:
    engine = _prepared(sa.create_engine(sqlite_url))
    made = rebuild(engine)
    run_to(made, "verify")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE projection_rebuild_runs SET state = 'switching'")
    with pytest.raises(StepOrderError, match="retry atomic_swap"):
        made.replay("OrderProjector") if step == "replay" else made.replay_shard("OrderProjector", 0)
    engine.dispose()


def test_an_old_table_that_its_own_run_drops_at_the_same_moment_is_in_nobodys_way(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prepared(engine)
    run_to(rebuild(engine, "first"), "reconcile")
    made = rebuild(engine, "next")
    run_to(made, "verify")
    for name in ("drop_retired", "drop_within"):
        drop = getattr(retired_names, name)
        monkeypatch.setattr(retired_names, name, lambda *given, drop=drop: drop(*given) and False)
    made.swap()
    assert actual(engine) == expected(STORED)


@pytest.mark.postgres
def test_what_holds_a_table_is_told_without_the_values_of_its_statements(postgres_url: sa.URL) -> None:
    engine = _prepared(sa.create_engine(postgres_url, poolclass=sa.NullPool))
    dialect = dialect_for(engine)
    with engine.connect() as migration, dialect.connect() as connection:
        migration.exec_driver_sql("SET application_name = 'migration'")
        migration.exec_driver_sql("ALTER TABLE orders SET (fillfactor = 90)")
        migration.exec_driver_sql("UPDATE orders SET status = 'a secret'")
        (said,) = dialect.maintenance(connection, "public", ["orders"])
        assert "migration, idle in transaction" in said and "secret" not in said
        migration.rollback()
        migration.exec_driver_sql("ANALYZE orders")
        (said,) = dialect.maintenance(connection, "public", ["orders"])
        assert "(ANALYZE orders) on orders" in said
    engine.dispose()


def test_a_dead_run_of_another_rebuild_is_refused_by_name(sqlite_url: sa.URL) -> None:
    engine = _prepared(sa.create_engine(sqlite_url))
    run_to(rebuild(engine, "dead", rebuild="another"), "swap")
    with pytest.raises(ClaimRefused, match="dead, which is over, but it has switched and was not reconciled"):
        rebuild(engine).plan(RunOptions(), is_over=lambda run: run == "dead")
    engine.dispose()


@pytest.mark.mysql
def test_a_rollback_goes_on_from_one_that_died_with_its_drain_done(mysql_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has drained past an append that was open, and what it has drained stays in the tables."""
    engine = _prepared(sa.create_engine(mysql_url, poolclass=sa.NullPool))
    run_to(rebuild(engine, "repair"), "reconcile")
    dead = rebuild(engine, "dead", swap={"wait_for_snapshots": "0s"})
    dead.plan_rollback(RunOptions())
    dead.bring_back()
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as slow:
        position = slow.execute(shop.stored_events.insert().values(**LATE[0])).inserted_primary_key[0]  # type: ignore[index]
        append(engine, LATE[1:2])
        with monkeypatch.context() as patch:
            patch.setattr(EventStore, "settled_head", lambda self: position - 1)
            patch.setattr(LockedTables, "run_swap", dies)
            with pytest.raises(Died):
                dead.swap()
        project(slow, position, LATE[0])
        slow.commit()
    made = rebuild(engine, "heir")
    made.plan_rollback(RunOptions(), is_over=lambda run: run == "dead")
    made.bring_back()
    made.swap()
    made.reconcile()
    assert actual(engine) == expected([*STORED, *LATE[:2]])
    engine.dispose()


def test_a_green_table_that_another_run_has_made_anew_does_not_go_live(server: sa.Engine) -> None:
    """A worker that was taken for dead may come back in the middle of clone_tables."""
    made = rebuild(server)
    run_to(made, "verify")
    context = made._context
    with context.dialect.connect() as connection:
        context.ledger.over(connection, "a zombie").owned_tables.add_green("orders_rebuild")
    with pytest.raises(FencedOut, match="has cloned orders_rebuild again"):
        made.swap()
    assert actual(server) == expected(STORED)


@pytest.mark.mysql
def test_who_uses_a_parent_beside_the_run_is_not_waited_for_with_the_tables_locked(mysql_url: sa.URL) -> None:
    """He may want one of the tables next, and would be the victim of the deadlock."""
    engine = sa.create_engine(mysql_url, poolclass=sa.NullPool)
    shop.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE customers (id INT PRIMARY KEY) ENGINE=InnoDB")
        connection.exec_driver_sql("ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers (id)")
    made = rebuild(engine)
    run_to(made, "clone")
    dialect = made._context.dialect
    tables = made._context.switched_sets(made.plan(RunOptions()))
    with engine.connect() as client, dialect.connect() as connection:
        client.exec_driver_sql("SELECT count(*) FROM customers")
        brief = LockPolicy(timeout=timedelta(seconds=0.1))
        with pytest.raises(TablesBusy), _locked(made._context.dialect, connection, tables, brief, made._context.ledger.tables):
            pass
        assert orders(client) == 0
    engine.dispose()


@pytest.mark.mariadb
def test_an_alteration_that_ends_while_the_switch_looks_for_its_moment_is_seen(
    mariadb_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is fenced, a look may be long. What slips in between the last look and the RENAME is told after it."""
    engine = sa.create_engine(mariadb_url, poolclass=sa.NullPool)
    shop.metadata.create_all(engine)
    made = rebuild(engine)
    run_to(made, "verify")
    dialect = made._context.dialect

    def alters() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("ALTER TABLE orders ADD COLUMN extra INT")

    migration = threading.Thread(target=alters)
    with engine.connect() as client, dialect.connect() as connection:
        tables = made._context.switched_sets(made._context.plan_of(made._context.ledger.over(connection, "run").runs.get()))
        statements = dialect.swap_statements(connection, tables).statements
        orders(client)
        migration.start()
        until(lambda: _waiting(engine, "ALTER TABLE orders ADD COLUMN extra INT"))

        def look(*given: Any) -> PreparedSwap:
            client.rollback()
            migration.join()
            return looked(*given)

        looked = dialect.swap_statements
        monkeypatch.setattr(dialect, "swap_statements", look)
        policy = LockPolicy(timedelta(seconds=0.1), longest=timedelta(seconds=20))
        with pytest.raises(CloneError, match="column extra"), _locked(dialect, connection, tables, policy) as held:
            held.run_swap(statements, policy)
    engine.dispose()


@pytest.fixture
def kept(mariadb_url: sa.URL) -> Iterator[tuple[sa.Engine, MariaDBDialect, list[TableSet]]]:
    """A filled database whose green tables could be switched, and are empty."""
    engine = _prepared(sa.create_engine(mariadb_url, poolclass=sa.NullPool))
    made = rebuild(engine)
    run_to(made, "verify")
    dialect = made._context.dialect
    assert isinstance(dialect, MariaDBDialect)
    with dialect.connect() as connection:
        sets = made._context.switched_sets(made._context.plan_of(made._context.ledger.over(connection, "run").runs.get()))
        greens = [f"DELETE FROM {each.green}" for each in sets]
        for statement in [*dialect.before_swap(connection, sets), "SET foreign_key_checks = 0", *greens]:
            dialect.run(connection, statement)
    yield engine, dialect, sets
    engine.dispose()


TABLES_FIRST = LockPolicy(timedelta(seconds=5), lock_order=LockOrder.TABLES_FIRST, longest=timedelta(seconds=20))


def _locked(
    dialect: Dialect, connection: sa.Connection, tables: list[TableSet], policy: LockPolicy, beside: Sequence[str] = ()
) -> AbstractContextManager[HeldTables]:
    return dialect.cutover.lock_tables(connection, tables, policy, beside)


def _counts(engine: sa.Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in TABLES}


def _counting(engine: sa.Engine, found: dict[str, int]) -> list[threading.Thread]:
    """Clients that count the rows of one table each, by now waiting for it."""

    def count(table: str) -> None:
        with engine.connect() as connection:
            found[table] = int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())

    clients = [threading.Thread(target=count, args=[table]) for table in TABLES]
    for client in clients:
        client.start()
    until(lambda: all(_waiting(engine, f"SELECT count(*) FROM {table}") for table in TABLES))
    return clients


@pytest.mark.mariadb
def test_whoever_waits_for_a_table_that_is_kept_comes_to_the_new_one(
    kept: tuple[sa.Engine, MariaDBDialect, list[TableSet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, dialect, tables = kept
    found: dict[str, int] = {}
    before_each_statement(monkeypatch, dialect, lambda statement: time.sleep(0.1) if "RENAME" in statement else None)
    with dialect.connect() as connection:
        with _locked(dialect, connection, tables, TABLES_FIRST) as held:
            clients = _counting(engine, found)
            held.run_swap(held.swap_statements().statements, TABLES_FIRST)
        for client in clients:
            client.join()
    assert found == dict.fromkeys(TABLES, 0)


@pytest.mark.mariadb
def test_sentries_leave_when_a_swap_is_given_up(kept: tuple[sa.Engine, MariaDBDialect, list[TableSet]]) -> None:
    engine, dialect, tables = kept
    before, found = _counts(engine), dict[str, int]()
    with dialect.connect() as connection, suppress(TablesBusy), _locked(dialect, connection, tables, TABLES_FIRST):
        clients = _counting(engine, found)
        raise TablesBusy
    for client in clients:
        client.join()
    assert found == before
    with engine.connect() as connection:
        assert SENTRY_TABLE not in connection.exec_driver_sql("SHOW TABLES").scalars().all()


@pytest.mark.mariadb
def test_a_sentry_table_that_becomes_free_by_accident_does_no_harm(
    kept: tuple[sa.Engine, MariaDBDialect, list[TableSet]],
) -> None:
    engine, dialect, tables = kept
    before = _counts(engine)
    with dialect.connect() as connection:
        with _locked(dialect, connection, tables, TABLES_FIRST) as held:
            for session in connection.exec_driver_sql(
                "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND = 'Sleep'"
            ).scalars():
                # The one that holds the sentry table among them.
                dialect.run(connection, f"KILL {session}")
            assert _counts(engine) == before
            held.run_swap(held.swap_statements().statements, TABLES_FIRST)
    assert _counts(engine) == dict.fromkeys(TABLES, 0)


@contextmanager
def held_back(engine: sa.Engine, limit: int, privileges: str) -> Iterator[sa.Engine]:
    """As an account with these privileges and this many connections (0: no limit)."""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER held_back IDENTIFIED BY 'held_back' WITH MAX_USER_CONNECTIONS {limit}")
        try:
            connection.exec_driver_sql(f"GRANT {privileges} ON {engine.url.database}.* TO held_back")
            url = engine.url.set(username="held_back", password="held_back")  # noqa: S106 - a test's user
            yield sa.create_engine(url, poolclass=sa.NullPool)
        finally:
            connection.exec_driver_sql("DROP USER held_back")


@pytest.mark.mariadb
@pytest.mark.parametrize(
    ("limit", "privileges"),
    [(4, "ALL"), (0, "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX")],
    ids=["connections", "right"],
)
def test_no_sentries_without(kept: tuple[sa.Engine, MariaDBDialect, list[TableSet]], limit: int, privileges: str) -> None:
    engine, _, tables = kept
    with held_back(engine, limit, privileges) as account, (dialect := dialect_for(account)).connect() as connection:
        with pytest.raises(TablesBusy), _locked(dialect, connection, tables, TABLES_FIRST):
            pass
        # Those that it had are given back.
        with dialect.connect(), dialect.connect(), dialect.connect():
            pass


@pytest.mark.mariadb
def test_a_table_that_comes_after_the_sentry_table_by_name_has_no_sentry(mariadb_url: sa.URL) -> None:
    engine = sa.create_engine(mariadb_url, poolclass=sa.NullPool)
    dialect = dialect_for(engine)
    with dialect.connect() as connection, engine.connect() as client:
        connection.exec_driver_sql("CREATE TABLE `\u00e9clairs` (id INT PRIMARY KEY)")
        table = TableSet.of("\u00e9clairs", schema=None, limit=64)
        with _locked(dialect, connection, [table], TABLES_FIRST):
            assert client.exec_driver_sql("SELECT count(*) FROM `\u00e9clairs`").scalar_one() == 0
    engine.dispose()


@pytest.mark.mysql
def test_tables_whose_holder_hangs_are_given_up_by_the_server(mysql_url: sa.URL) -> None:
    engine = sa.create_engine(mysql_url, poolclass=sa.NullPool)
    shop.metadata.create_all(engine)
    made = rebuild(engine)
    run_to(made, "clone")
    dialect = made._context.dialect
    tables = made._context.switched_sets(made.plan(RunOptions()))
    brief = LockPolicy(timeout=timedelta(seconds=1), longest=timedelta(milliseconds=200))
    freed: list[int] = []
    with engine.connect() as client, pytest.raises(sa.exc.OperationalError), dialect.connect() as connection:
        client.exec_driver_sql("SET SESSION lock_wait_timeout = 5")
        with _locked(dialect, connection, tables, brief, made._context.ledger.tables):
            freed.append(orders(client))
            dialect.run(connection, "SELECT 1")
    assert freed == [0]
    with dialect.connect() as connection:
        with _locked(dialect, connection, tables, brief, made._context.ledger.tables):
            pass
        assert connection.exec_driver_sql("SELECT @@SESSION.wait_timeout = @@GLOBAL.wait_timeout").scalar()
    engine.dispose()


@pytest.mark.mysql
def test_nobody_waits_for_ever_in_a_circle_that_the_server_does_not_see(
    mysql_url: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that has opened the event store waits for a table that we hold, somebody's FLUSH of the store waits for the client,
    even after it was given up, and we wait for the FLUSH."""
    engine = _prepared(sa.create_engine(mysql_url, poolclass=sa.NullPool))
    made = rebuild(engine)
    run_to(made, "verify")
    clients: list[threading.Thread] = []

    def at_work(statement: str, *before: str) -> threading.Thread:
        def work() -> None:
            with engine.connect() as connection, suppress(sa.exc.OperationalError):
                for each in (*before, statement):
                    connection.exec_driver_sql(each)

        client = threading.Thread(target=work)
        client.start()
        until(lambda: _waiting(engine, statement))
        return client

    def begin() -> None:
        if not clients:
            clients.append(at_work("SELECT (SELECT max(id) FROM stored_events), (SELECT count(*) FROM orders)"))
            clients.append(at_work("FLUSH TABLES stored_events WITH READ LOCK", "SET SESSION lock_wait_timeout = 1"))

    before_the_drain(monkeypatch, begin)
    # Otherwise a switch that waits for ever would be a test that never ends.
    rescue = threading.Timer(30, _kill, [engine, "SELECT (SELECT"])
    rescue.start()
    assert made.swap().attempts > 1
    assert rescue.is_alive()
    rescue.cancel()
    for client in clients:
        client.join()
    assert actual(engine) == expected(STORED)
    engine.dispose()


def _waiting(engine: sa.Engine, statement: str) -> bool:
    with engine.connect() as connection:
        return any(
            row[7] == statement and str(row[6]).startswith("Waiting")
            for row in connection.exec_driver_sql("SHOW FULL PROCESSLIST")
        )


def _kill(engine: sa.Engine, beginning: str) -> None:
    with engine.connect() as connection:
        for row in connection.exec_driver_sql("SHOW FULL PROCESSLIST").all():
            if str(row[7]).startswith(beginning):
                connection.exec_driver_sql(f"KILL {row[0]}")
