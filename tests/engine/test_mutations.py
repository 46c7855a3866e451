"""Each safety measure taken out in turn: the harm that it prevents must then happen, so that none is decoration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild import ledger
from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.base import Cutover, Dialect, Fence, HeldTables
from projection_rebuild.dialects.mariadb.fenced_rename import FencedTables
from projection_rebuild.dialects.mysql.locked_tables import LockedTables
from projection_rebuild.dialects.postgres.transactional import HeldByLocks
from projection_rebuild.errors import ClaimRefused, RebuildError
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.ledger import Checkpoint
from projection_rebuild.model.names import TableSet
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay import catch_up
from projection_rebuild.replay.handler_replay import HandlerReplay
from projection_rebuild.run.context import Context
from projection_rebuild.shadow import retire
from projection_rebuild.spec.options import RunOptions
from projection_rebuild.traffic.throttle import Throttle
from tests.conftest import DATABASES, SERVERS
from tests.engine.harness import shop
from tests.engine.harness.clients import project
from tests.engine.harness.databases import marked
from tests.engine.harness.driver import run_to, run_to_end
from tests.engine.harness.seams import before_the_drain, without_folding
from tests.engine.harness.shop import actual, events, expected
from tests.engine.harness.specs import PROJECTORS, rebuild, spec

LATE = {"aggregate_uuid": "late", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-03-01"}}


EVERYWHERE = DATABASES


def on(*kinds: str) -> pytest.MarkDecorator:
    """The kinds of databases that have the measure."""
    return pytest.mark.parametrize("kind", marked(*kinds))


@pytest.fixture
def database(kind: str, new_database: Callable[[str], sa.URL]) -> sa.Engine:
    """1,000 events."""
    engine = sa.create_engine(new_database(kind), poolclass=sa.NullPool)
    shop.fill(engine, events(1_000))
    return engine


@on(*SERVERS)
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


@on(*EVERYWHERE)
def test_without_the_drain_the_last_events_are_lost(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "verify")
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    monkeypatch.setattr(catch_up.CatchUp, "drain", lambda self, position: [])
    monkeypatch.setattr(catch_up.CatchUp, "catch_up", lambda self, stopped: None)
    monkeypatch.setattr(catch_up.CatchUp, "miscounted", lambda self, stored: [])
    made.swap()
    assert actual(database) != expected([*events(1_000), LATE])


@on(*EVERYWHERE)
def test_without_the_drain_the_count_refuses_the_switch(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "verify")
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    without_folding(monkeypatch)
    monkeypatch.setattr(catch_up.CatchUp, "catch_up", lambda self, stopped: None)
    monkeypatch.setattr(catch_up.CatchUp, "position", property(lambda self: 1_000))
    monkeypatch.setattr(
        EventStore, "counts", lambda self, after, upto, count=EventStore.counts: count(self, after, self.newest())
    )
    with pytest.raises(RebuildError, match="the store holds"):
        made.swap()
    assert actual(database)["orders"] == {}


@on(*EVERYWHERE)
def test_without_the_count_a_missed_event_is_lost(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = events(1_000)
    at = next(at for at in range(999, 0, -1) if stored[at - 1]["event_class"] == "LineAdded")
    with database.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM stored_events WHERE id = {at}")
        connection.execute(shop.stored_events.insert(), [LATE])
    # The sample would find it, too.
    made = rebuild(database, verify={"sample": 0})
    run_to(made, "verify")
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [{"id": at} | stored[at - 1]])
    monkeypatch.setattr(catch_up.CatchUp, "miscounted", lambda self, stored: [])
    made.swap()
    assert actual(database) != expected([*stored, LATE])


def unthrottled(context: Context, connection: sa.Connection) -> Throttle:
    """Of a worker that nobody asks to stop."""
    return Throttle(context, "worker", connection, lambda: False)


@on(*EVERYWHERE)
def test_without_the_compare_and_set_two_workers_both_write(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def unconditional(
        self: ledger.Checkpoints,
        read: Checkpoint,
        *,
        position: int,
        head: int,
        events: int,
        seconds: float,
    ) -> Checkpoint:
        table = self._schema.checkpoints
        self._connection.execute(table.update().where(table.c.projector == read.projector).values(position=position, head=head))
        return Checkpoint(read.projector, position, head, read.events + events, read.seconds, read.token)

    made = rebuild(database, projectors=["tests.engine.harness.shop:CustomerTotalProjector"])
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as one, context.dialect.connect() as two:
        read = context.ledger.over(one, "run").checkpoints.of_projectors()["CustomerTotalProjector"]
        first = HandlerReplay(context, shop.CustomerTotalProjector, read, one)
        first.replay_to(1_000, unthrottled(context, one), lambda _: None)
        late = HandlerReplay(context, shop.CustomerTotalProjector, read, two)
        # It has loaded what the first one wrote, and would add the same events to it.
        late.rows.forget()
        monkeypatch.setattr(ledger.Checkpoints, "advance", unconditional)
        late.replay_to(1_000, unthrottled(context, two), lambda _: None)
        doubled = {row[0]: row[1] for row in one.exec_driver_sql("SELECT customer, orders FROM customer_totals_rebuild")}
    assert doubled == {key: each[0] * 2 for key, each in expected(events(1_000))["customer_totals"].items()}


@on(*EVERYWHERE)
def test_without_the_token_a_worker_of_an_earlier_clone_writes(database: sa.Engine) -> None:
    made = rebuild(database)
    run_to(made, "clone")
    context = made._context
    with context.dialect.connect() as connection:
        before = context.ledger.over(connection, "run").checkpoints.of_projectors()["OrderProjector"]
        made.clone_tables()
        now = context.ledger.over(connection, "run").checkpoints.of_projectors()["OrderProjector"]
        assert before.position == now.position and before.token != now.token
        stolen = Checkpoint(before.projector, before.position, before.head, before.events, before.seconds, now.token)
        work = HandlerReplay(context, shop.OrderProjector, stolen, connection)
        work.replay_to(500, unthrottled(context, connection), lambda _: None)
        assert connection.exec_driver_sql("SELECT count(*) FROM orders_rebuild").scalar_one() > 0


@on(*EVERYWHERE)
def test_without_the_identity_somebody_elses_table_is_dropped(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database)
    run_to(made, "reconcile")
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE customer_totals_old")
        connection.exec_driver_sql("CREATE TABLE customer_totals_old (n int)")
    recorded = {each.old: each.identity for each in _retired(made)}
    monkeypatch.setattr(type(dialect_for(database)), "identity", lambda *_: recorded["customer_totals_old"])
    assert "customer_totals_old" in made.drop_old()


def _retired(made: Any) -> list[Any]:
    context = made._context
    with context.dialect.connect() as connection:
        return list(context.ledger.over(connection, "run").owned_tables.retired(run_id=context.run_id))


HELD: dict[str, type[HeldTables]] = {"postgresql": HeldByLocks, "mysql": LockedTables, "mariadb": FencedTables}


@contextmanager
def unheld(self: Cutover, connection: sa.Connection, tables: Sequence[TableSet], *_: object) -> Iterator[HeldTables]:
    """The locks of the swap, left out."""
    with self._dialect.ddl_transaction(connection):
        yield HELD[self._dialect.database](self._dialect, connection, tables)


@contextmanager
def unfenced(self: Dialect, *_: object) -> Iterator[Fence]:
    """The fence around the event store, left out."""
    yield Fence(lambda: True)


@pytest.mark.parametrize(
    ("kind", "measure", "left_out"),
    [
        pytest.param("postgres", "lock_tables", unheld, marks=pytest.mark.postgres),
        pytest.param("mariadb", "fence", unfenced, marks=pytest.mark.mariadb),
        pytest.param("mysql", "lock_tables", unheld, marks=pytest.mark.mysql),
    ],
)
def test_without_locks_a_writer_of_blue_is_lost(
    database: sa.Engine, monkeypatch: pytest.MonkeyPatch, measure: str, left_out: object
) -> None:
    """A client that appends and projects in one transaction, while the tables are about to be switched."""
    made = rebuild(database)
    run_to(made, "verify")
    dialect = made._context.dialect
    monkeypatch.setattr(type(dialect if measure == "fence" else dialect.cutover), measure, left_out)
    held = HELD[dialect.database]
    original = held.run_swap

    def while_a_client_writes(self: HeldTables, *swap: Any) -> Any:
        with database.begin() as writer:
            writer.execute(shop.stored_events.insert(), [LATE])
            writer.exec_driver_sql(
                "INSERT INTO orders (id, customer, status, placed_on) VALUES ('late', 1, 'placed', '2026-03-01')"
            )
        return original(self, *swap)

    monkeypatch.setattr(held, "run_swap", while_a_client_writes)
    made.swap()
    assert "late" not in actual(database)["orders"]


DETACHED = {"contract": "detached", "drain_check": "SELECT 0"}


def append_before_the_drain(monkeypatch: pytest.MonkeyPatch, engine: sa.Engine) -> None:
    """A client of the contract `detached` appends when no job is left any more, where no fence keeps it from that."""
    monkeypatch.setattr(type(dialect_for(engine)), "fence", unfenced)

    def append() -> None:
        with engine.begin() as connection:
            connection.execute(shop.stored_events.insert(), [LATE])

    before_the_drain(monkeypatch, append)


def assert_its_job_comes_second(models: sa.Engine) -> None:
    """The job projects into the new tables what has been drained into them."""
    with pytest.raises(sa.exc.IntegrityError), models.begin() as connection:
        project(connection, 1_001, LATE)


@on(*SERVERS)
def test_without_the_fence_a_job_projects_what_was_drained(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rebuild(database, live_writer=DETACHED)
    run_to(made, "verify")
    append_before_the_drain(monkeypatch, database)
    made.swap()
    assert_its_job_comes_second(database)


def test_without_the_fence_around_another_database_a_job_projects_what_was_drained(
    new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, models = (sa.create_engine(new_database("sqlite"), poolclass=sa.NullPool) for _ in range(2))
    for each in (store, models):
        shop.metadata.create_all(each)
    with store.begin() as connection:
        connection.execute(shop.stored_events.insert(), events(1_000))
    made = Rebuild(spec(live_writer=DETACHED), run_id="two", event_store=store, read_models=models)
    run_to(made, "verify")
    append_before_the_drain(monkeypatch, store)
    made.swap()
    assert_its_job_comes_second(models)


@on(*EVERYWHERE)
def test_without_claims_a_second_run_drops_what_the_first_has_made(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rebuild(database, "first"), rebuild(database, "second")
    run_to(first, "replay")
    with pytest.raises(ClaimRefused):
        second.plan(RunOptions())
    assert actual(database, "_rebuild") == expected(events(1_000))
    monkeypatch.setattr(ledger.Claims, "claim", lambda self, tables: None)
    run_to(second, "clone")
    assert actual(database, "_rebuild") == expected([])


@on(*EVERYWHERE)
def test_with_everything_in_place_none_of_it_happens(database: sa.Engine) -> None:
    made = rebuild(database)
    run_to(made, "verify", RunOptions())
    with database.begin() as connection:
        connection.execute(shop.stored_events.insert(), [LATE])
    run_to_end(made, PROJECTORS)
    assert actual(database) == expected([*events(1_000), LATE])
    assert retire.drop_old(made._context, lambda run: False)
