"""Settled heads: positions that commit out of their order are never passed, and nobody is waited for without end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.errors import SettleTimeout
from projection_rebuild.eventstore.store import EventStore
from projection_rebuild.spec.stores import EventStoreSection
from tests.engine.harness import shop
from tests.engine.harness.databases import having, marked
from tests.engine.harness.faults import until
from tests.engine.harness.seams import server_lists_no_locks

EVENT = {"aggregate_uuid": "s", "event_class": "OrderPlaced", "event_properties": {"customer": 1, "on": "2026-01-01"}}
servers = pytest.mark.parametrize("kind", having(one_writer=False))


@pytest.fixture
def store_of(new_database: Callable[[str], sa.URL]) -> Callable[[str], tuple[sa.Engine, EventStore]]:
    def make(kind: str) -> tuple[sa.Engine, EventStore]:
        engine = sa.create_engine(new_database(kind), poolclass=sa.NullPool)
        shop.metadata.create_all(engine, tables=[shop.stored_events])
        return engine, EventStore(dialect_for(engine), EventStoreSection(conn_id="db"))

    return make


def append(connection: sa.Connection) -> int:
    return int(connection.execute(shop.stored_events.insert().values(**EVENT)).inserted_primary_key[0])  # type: ignore[index]


def read(store: EventStore, after: int, upto: int) -> list[int]:
    pages = store.pages(after, upto, ["OrderPlaced"], size=100)
    return [event.position for events, _ in pages for event in events]


@pytest.mark.postgres
def test_a_sequence_that_hands_out_numbers_in_advance(store_of: Callable[[str], tuple[sa.Engine, EventStore]]) -> None:
    engine, store = store_of("postgres")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER SEQUENCE stored_events_id_seq CACHE 20")
    with engine.connect() as one, engine.connect() as two:
        first = append(one)
        one.commit()
        second = append(two)
        two.commit()
        assert second - first > 1
        head = store.settled_head()
        assert head == second
        # A number from the first client's cache, lower than the settled head: reading alone cannot know of it.
        below = append(one)
        one.commit()
        assert first < below < head
        assert store.counts(0, head) == {"OrderPlaced": 3}


@pytest.mark.postgres
def test_an_append_that_has_its_position_and_no_transaction_id_yet_is_waited_for(
    store_of: Callable[[str], tuple[sa.Engine, EventStore]],
) -> None:
    """A default is worked out before the triggers; a sequence's number leaves no trace of who has taken it."""
    engine, store = store_of("postgres")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE FUNCTION dawdles() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.event_class = 'Slow' THEN PERFORM pg_sleep(2); END IF; RETURN NEW; END $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER dawdles BEFORE INSERT ON stored_events FOR EACH ROW EXECUTE FUNCTION dawdles()"
        )
        # Every 32nd number is written to the log, by a transaction with an id.
        append(connection)

    def slowly() -> None:
        with engine.begin() as connection:
            connection.execute(shop.stored_events.insert().values(**EVENT | {"event_class": "Slow"}))

    late = threading.Thread(target=slowly)
    late.start()
    # Within one transaction the server would answer as it did the first time.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        until(lambda: connection.exec_driver_sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").scalar())
    with engine.begin() as connection:
        higher = append(connection)
    assert store.settled_head() == higher
    assert store.counts(0, higher) == {"OrderPlaced": 2, "Slow": 1}
    late.join()


@pytest.mark.parametrize("kind", marked("mariadb", "mysql"))
def test_whoever_waits_for_a_long_append_leaves_the_others_their_pace(
    kind: str, store_of: Callable[[str], tuple[sa.Engine, EventStore]]
) -> None:
    engine, store = store_of(kind)
    latencies: list[float] = []
    stop = threading.Event()

    def client() -> None:
        with engine.connect() as connection:
            while not stop.is_set():
                began = time.monotonic()
                append(connection)
                connection.commit()
                latencies.append(time.monotonic() - began)
                time.sleep(0.005)

    with engine.connect() as endless:
        append(endless)
        others = threading.Thread(target=client)
        others.start()
        with pytest.raises(SettleTimeout):
            store.settled_head(timedelta(seconds=1.5))
        stop.set()
        others.join()
    assert len(latencies) > 20 and max(latencies) < 0.7


@pytest.mark.mysql
@pytest.mark.parametrize("listed", [True, False])
def test_a_reader_is_not_waited_for_where_the_server_lists_locks(
    listed: bool, store_of: Callable[[str], tuple[sa.Engine, EventStore]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, store = store_of("mysql")
    if not listed:
        server_lists_no_locks(monkeypatch)
    with engine.begin() as connection:
        last = append(connection)

    def reads() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT SLEEP(1), id FROM stored_events").all()

    reader = threading.Thread(target=reads)
    reader.start()
    time.sleep(0.3)
    if listed:
        assert store.settled_head(timedelta(seconds=0.5)) == last
        assert reader.is_alive()
    else:
        with pytest.raises(SettleTimeout):
            store.settled_head(timedelta(seconds=0.1))
    reader.join()


@servers
def test_with_many_appenders_nothing_is_missed(kind: str, store_of: Callable[[str], tuple[sa.Engine, EventStore]]) -> None:
    engine, store = store_of(kind)
    stop = threading.Event()

    def client() -> None:
        with engine.connect() as connection:
            while not stop.is_set():
                append(connection)
                time.sleep(0.003)
                connection.commit()

    clients = [threading.Thread(target=client) for _ in range(6)]
    for each in clients:
        each.start()
    seen: list[int] = []
    head = 0
    ends = time.monotonic() + 4
    while time.monotonic() < ends:
        upto = store.settled_head()
        seen += read(store, head, upto)
        head = upto
    stop.set()
    for each in clients:
        each.join()
    seen += read(store, head, store.settled_head())
    with engine.connect() as connection:
        stored: list[Any] = list(connection.exec_driver_sql("SELECT id FROM stored_events ORDER BY id").scalars())
    assert len(stored) > 100
    assert seen == stored
