"""The application at work, by each contract: nothing is projected twice, out of order, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count

import pytest
import sqlalchemy as sa

from include.universal import live
from include.universal.cdnow import purchases
from include.universal.events import append, generate
from include.universal.independent import actual_tables, expected_tables
from include.universal.live import append_and_enqueue, append_and_project, consume, look_up, traffic, unit_of_work, work_off
from include.universal.projectors import ExpenseProjector
from include.universal.rows import Expense
from include.universal.schema import create_schema, stored_events
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.dialects import dialect_for
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.rows.types import Rows
from projection_rebuild.spec.stores import EventStoreSection


class Broken(Projector):
    owns = (Expense,)

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        raise RuntimeError("a bug")


def stored(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(stored_events)).scalar_one())


def test_an_event_is_stored_with_its_rows(engine: sa.Engine) -> None:
    create_schema(engine)
    with unit_of_work(engine) as connection:
        event = append_and_project(connection, next(purchases()))
    assert event.position == 1
    assert actual_tables(engine) == expected_tables(engine)


def test_only_the_given_projectors_run(engine: sa.Engine) -> None:
    create_schema(engine)
    with unit_of_work(engine) as connection:
        append_and_project(connection, next(purchases()), [ExpenseProjector])
    assert [table for table, rows in actual_tables(engine).items() if rows] == ["expenses"]


def test_a_failing_projector_takes_the_event_back(engine: sa.Engine) -> None:
    create_schema(engine)
    with pytest.raises(RuntimeError, match="a bug"), unit_of_work(engine) as connection:
        append_and_project(connection, next(purchases()), [ExpenseProjector, Broken])
    assert stored(engine) == 0
    assert not any(actual_tables(engine).values())


def test_traffic_of_the_same_seed_never_meets_itself(engine: sa.Engine) -> None:
    create_schema(engine)
    assert [traffic(engine, 40, seed=1), traffic(engine, 40, seed=1)] == [40, 40]
    assert actual_tables(engine) == expected_tables(engine)


def test_traffic_stops_between_two_transactions(engine: sa.Engine) -> None:
    create_schema(engine)
    asked = count()
    assert traffic(engine, 1_000, seed=1, stopped=lambda: next(asked) == 7) == 7
    assert stored(engine) == 7


def test_clients_at_the_same_time_lose_nothing(engine: sa.Engine) -> None:
    create_schema(engine)
    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(lambda seed: traffic(engine, 60, seed=seed), range(4))) == [60] * 4
    assert stored(engine) == 240
    assert actual_tables(engine) == expected_tables(engine)


def test_an_event_that_fails_is_tried_again(engine: sa.Engine) -> None:
    create_schema(engine)
    tried = count()
    seen: list[str] = []

    @contextmanager
    def patient() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            seen.append(str(error))

    def fails_at_first(connection: sa.Connection, event: live.NewEvent) -> None:
        append_and_project(connection, event)
        if next(tried) == 3:
            raise OSError("cut off")

    assert traffic(engine, 30, seed=1, store=fails_at_first, around=patient) == 30
    assert (seen, stored(engine)) == (["cut off"], 30)
    assert actual_tables(engine) == expected_tables(engine)


def test_a_command_sees_the_row_that_it_decides_on(engine: sa.Engine) -> None:
    create_schema(engine)
    first = {event.type: event for event in generate(4_000)}
    with unit_of_work(engine) as connection:
        assert [look_up(connection, event) for event in first.values()] == [None] * len(first)
        created = first["SubscriptionCreated"]
        append_and_project(connection, created)
        assert look_up(connection, created) == ("active", created.payload["price_cents"])
        spent = first["ExpenseRecorded"]
        append_and_project(connection, spent)
        assert look_up(connection, spent) == (1, spent.payload["amount_cents"])


@pytest.fixture
def store(engine: sa.Engine) -> EventStore:
    """The event store of an application that projects later."""
    create_schema(engine)
    live.metadata.create_all(engine)
    live.add_consumer(engine)
    return EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))


def test_a_consumer_goes_on_from_its_position(engine: sa.Engine, store: EventStore) -> None:
    traffic(engine, 60, seed=1, store=append)
    assert [consume(engine, store, limit=50) for _ in range(3)] == [50, 10, 0]
    traffic(engine, 5, seed=2, store=append)
    assert consume(engine, store) == 5
    assert actual_tables(engine) == expected_tables(engine)


def test_a_consumer_passes_events_that_concern_nobody(engine: sa.Engine, store: EventStore) -> None:
    with unit_of_work(engine) as connection:
        append(connection, next(purchases())._replace(type="SomethingElse"))
    assert [consume(engine, store), consume(engine, store)] == [1, 0]


def test_a_consumer_that_fails_stays_where_it_was(engine: sa.Engine, store: EventStore) -> None:
    with unit_of_work(engine) as connection:
        append(connection, next(purchases()))
    with pytest.raises(RuntimeError, match="a bug"):
        consume(engine, store, [ExpenseProjector, Broken])
    assert not any(actual_tables(engine).values())
    assert consume(engine, store) == 1


def test_two_consumers_of_one_name_project_nothing_twice(engine: sa.Engine, store: EventStore) -> None:
    traffic(engine, 200, seed=1, store=append)
    with ThreadPoolExecutor(2) as consumers:
        gone = [sum(each) for each in consumers.map(lambda _: [consume(engine, store, limit=10) for _ in range(30)], range(2))]
    assert sum(gone) == 200
    assert actual_tables(engine) == expected_tables(engine)


def test_a_job_is_done_once_and_in_the_order_of_its_aggregate(engine: sa.Engine, store: EventStore) -> None:
    traffic(engine, 200, seed=1, store=partial(append_and_enqueue, queues=2))
    with ThreadPoolExecutor(2) as workers:
        done = workers.map(lambda queue: [work_off(engine, store, queue) for _ in range(200)].count(True), range(2))
    assert sum(done) == 200
    assert actual_tables(engine) == expected_tables(engine)


def test_a_job_that_fails_is_still_there(engine: sa.Engine, store: EventStore) -> None:
    with unit_of_work(engine) as connection:
        append_and_enqueue(connection, next(purchases()))
    with pytest.raises(RuntimeError, match="a bug"):
        work_off(engine, store, projectors=[ExpenseProjector, Broken])
    assert [work_off(engine, store), work_off(engine, store)] == [True, False]
