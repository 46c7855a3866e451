"""Each safety measure taken out in turn: the harm that it prevents must then happen, so that none is decoration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from include.projection_rebuild import ledger, lockstep, replay, retire
from include.projection_rebuild.dialects.base import Dialect
from include.projection_rebuild.errors import RebuildError
from include.projection_rebuild.event_store import EventStore
from include.projection_rebuild.ledger import Checkpoint
from include.projection_rebuild.spec import RunOptions
from tests.engine import shop
from tests.engine.test_rebuild import PROJECTORS, actual, events, expected, rebuild, run_to, run_to_end

LATE = {"aggregate_uuid": "late", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-03-01"}}


@pytest.fixture
def database(new_database: Callable[[str], sa.URL]) -> sa.Engine:
    """1,000 events on PostgreSQL."""
    engine = sa.create_engine(new_database("postgres"), poolclass=sa.NullPool)
    shop.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(1_000))
    return engine


pytestmark = pytest.mark.postgres


def test_without_settling_events_are_missed(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "clone")
    monkeypatch.setattr(EventStore, "settled_head", lambda self: self.newest())
    with database.connect() as slow:
        slow.execute(shop.stored_events.insert(), [LATE])
        with database.begin() as quick:
            quick.execute(shop.stored_events.insert(), [LATE | {"aggregate_uuid": "quick"}])
        made.replay("OrderProjector")
        slow.commit()
    made.replay("OrderProjector")
    with database.connect() as connection:
        green = set(connection.exec_driver_sql("SELECT id FROM orders_rebuild").scalars())
    assert "quick" in green and "late" not in green


def test_without_the_drain_the_last_events_are_lost(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "verify")
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    monkeypatch.setattr(lockstep.Lockstep, "drain", lambda self, position: None)
    monkeypatch.setattr(lockstep.Lockstep, "catch_up", lambda self: None)
    monkeypatch.setattr(lockstep.Lockstep, "miscounted", lambda self, stored: [])
    made.swap()
    assert actual(database) != expected([*events(1_000), LATE])


def test_without_the_drain_the_count_refuses_the_switch(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "verify")
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    monkeypatch.setattr(lockstep.Lockstep, "_fold", lambda self, bound: {})
    monkeypatch.setattr(lockstep.Lockstep, "catch_up", lambda self: None)
    monkeypatch.setattr(lockstep.Lockstep, "position", property(lambda self: 1_000))
    monkeypatch.setattr(
        EventStore, "counts", lambda self, after, upto, count=EventStore.counts: count(self, after, self.newest())
    )
    with pytest.raises(RebuildError, match="the store holds"):
        made.swap()
    assert actual(database)["orders"] == {}


def test_without_the_count_a_missed_event_is_lost(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = events(1_000)
    at = next(at for at in range(1_000, 0, -1) if stored[at - 1]["event_class"] == "LineAdded")
    with database.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM stored_events WHERE id = {at}")
        connection.execute(shop.stored_events.insert(), [LATE])
    made = rebuild(database)
    run_to(made, "verify")
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [{"id": at} | stored[at - 1]])
    monkeypatch.setattr(lockstep.Lockstep, "miscounted", lambda self, stored: [])
    made.swap()
    assert actual(database) != expected([*stored, LATE])


def test_without_the_compare_and_set_two_workers_both_write(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def unconditional(
        self: ledger.Ledger,
        connection: sa.Connection,
        run_id: str,
        read: Checkpoint,
        *,
        position: int,
        head: int,
        events: int,
        seconds: float,
    ) -> Checkpoint:
        connection.execute(
            self._checkpoints.update().where(self._checkpoints.c.projector == read.projector).values(position=position, head=head)
        )
        return Checkpoint(read.projector, position, head, read.events + events, read.seconds, read.token)

    made = rebuild(database, projectors=["tests.engine.shop:CustomerTotalProjector"])
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as one, context.dialect.connect() as two:
        read = context.ledger.checkpoints(one, "run")["CustomerTotalProjector"]
        first = replay.ProjectorReplay(context, shop.CustomerTotalProjector, read, one)
        first.replay_to(1_000, lambda: False, lambda _: None)
        late = replay.ProjectorReplay(context, shop.CustomerTotalProjector, read, two)
        # It has loaded what the first one wrote, and would add the same events to it.
        late._buffer.forget()
        monkeypatch.setattr(ledger.Ledger, "advance", unconditional)
        late.replay_to(1_000, lambda: False, lambda _: None)
        doubled = {row[0]: row[1] for row in one.exec_driver_sql("SELECT customer, orders FROM customer_totals_rebuild")}
    assert doubled == {key: each[0] * 2 for key, each in expected(events(1_000))["customer_totals"].items()}


def test_without_the_token_a_worker_of_an_earlier_clone_writes(database: sa.Engine) -> None:
    made = rebuild(database)
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as connection:
        before = context.ledger.checkpoints(connection, "run")["OrderProjector"]
        made.clone_tables()
        now = context.ledger.checkpoints(connection, "run")["OrderProjector"]
        assert before.position == now.position and before.token != now.token
        stolen = Checkpoint(before.projector, before.position, before.head, before.events, before.seconds, now.token)
        replay.ProjectorReplay(context, shop.OrderProjector, stolen, connection).replay_to(500, lambda: False, lambda _: None)
        assert connection.exec_driver_sql("SELECT count(*) FROM orders_rebuild").scalar_one() > 0


def test_without_the_identity_somebody_elses_table_is_dropped(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "reconcile")
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE customer_totals_old")
        connection.exec_driver_sql("CREATE TABLE customer_totals_old (n int)")
    monkeypatch.setattr(type(made._context.dialect), "identity", lambda self, connection, schema, table: self._same)
    recorded = {each.old: each.identity for each in _retired(made)}
    monkeypatch.setattr(type(made._context.dialect), "_same", recorded["customer_totals_old"], raising=False)
    assert "customer_totals_old" in made.drop_old()


def _retired(made: Any) -> list[Any]:
    context = made._context
    with context.dialect.connect() as connection:
        return list(context.ledger.retired(connection, run_id=context.run_id))


def test_without_locks_a_writer_of_blue_is_lost(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has appended and projected, but not committed: the switch must wait for it."""
    made = rebuild(database)
    run_to(made, "verify")
    from contextlib import contextmanager

    @contextmanager
    def unheld(self: Dialect, connection: sa.Connection, tables: object, timeout: timedelta) -> Any:
        with self.transaction(connection):
            yield

    monkeypatch.setattr(type(made._context.dialect), "hold", unheld)
    original = type(made._context.dialect).run_switch
    writer = database.connect()

    def while_a_client_writes(self: Dialect, connection: sa.Connection, statements: Any, timeout: timedelta) -> None:
        writer.execute(shop.stored_events.insert(), [LATE])
        writer.exec_driver_sql("INSERT INTO orders (id, customer, status, placed_on) VALUES ('late', 1, 'placed', '2026-03-01')")
        writer.commit()
        original(self, connection, statements, timeout)

    monkeypatch.setattr(type(made._context.dialect), "run_switch", while_a_client_writes)
    made.swap()
    writer.close()
    assert "late" not in actual(database)["orders"]


def test_with_everything_in_place_none_of_it_happens(database: sa.Engine) -> None:
    made = rebuild(database)
    run_to(made, "verify", RunOptions())
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    run_to_end(made, PROJECTORS)
    assert actual(database) == expected([*events(1_000), LATE])
    assert retire.drop_old(made._context)
