"""The shop's application beside a rebuild: its client must always be able to work, and its tables must be correct."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from include.universal.live import unit_of_work
from projection_rebuild.authoring.events import Event
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.replay.inline import project_live
from tests.engine.harness import shop
from tests.engine.harness.driver import run_to
from tests.engine.harness.faults import until
from tests.engine.harness.shop import TABLES, actual, events, expected, tables
from tests.engine.harness.specs import spec

PROJECTORS = (shop.OrderProjector, shop.OrderLineProjector, shop.CustomerTotalProjector)
# One of the projectors replays by SQL, except for the tail.
BY_BOTH_FORMS = [
    "tests.engine.harness.shop:OrderProjector",
    "tests.engine.harness.shop:OrderLineProjector",
    "tests.engine.harness.shop_sets:CustomerTotalProjector",
]
IN_SHARDS = {"batch_events": 100, "max_rows_in_memory": 20, "shards": {"OrderLineProjector": 2}}
# Short lock time-outs, so that a test soon fails on a lock that was not released.
IMPATIENT: dict[str, dict[str, Any]] = {
    "postgresql": {"options": "-c lock_timeout=5s"},
    "mysql": {"init_command": "SET lock_wait_timeout = 5, innodb_lock_wait_timeout = 5"},
    "sqlite": {},
}
IN_TRANSACTION = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%%'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p "
    "ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND p.id <> CONNECTION_ID()",
}


class LiveShop:
    """An application that appends and projects in one transaction.

    :param url: an empty database
    :ivar stored: all events that it has committed, in their order
    """

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self.engine = sa.create_engine(url, pool_pre_ping=True, connect_args=IMPATIENT[url.get_backend_name()])
        self.workers = sa.create_engine(url)
        self.stored = events(250)
        self.visits = 0
        shop.metadata.create_all(self.engine)
        with self.engine.begin() as connection:
            connection.execute(shop.stored_events.insert(), self.stored)
        # From here on blue is correct, and must stay so.
        first = self.open_run("first")
        run_to(first, "drop")
        first.close()
        self.check()

    def open_run(self, run_id: str, engine: sa.Engine | None = None, **changes: Any) -> Rebuild:
        """A run of the shop's spec in small batches, on connections of its own.

        :param engine: the engine for its connections; None: one to the application's database
        """
        # A small sample: the sweeps strike each of its statements, and all of them are alike.
        usual = {"replay": IN_SHARDS, "projectors": BY_BOTH_FORMS, "verify": {"sample": 2}}
        small = spec(**(usual | changes))
        at = engine or self.workers
        return Rebuild(small, run_id=run_id, event_store=at, read_models=at, log=lambda _: None)

    def visit(self) -> None:
        """Appends and projects one event: alternately a new order and a line of it."""
        order = {"customer": 3, "on": "2026-03-01"}
        line = {"customer": 3, "line": 1, "product": "p", "price": "2.50", "options": {}}
        number, is_line = divmod(self.visits, 2)
        made = {
            "aggregate_uuid": f"visit-{number}",
            "event_class": "LineAdded" if is_line else "OrderPlaced",
            "event_properties": line if is_line else order,
        }
        with unit_of_work(self.engine) as connection:
            position = connection.execute(shop.stored_events.insert().values(**made)).inserted_primary_key[0]  # type: ignore[index]
            project(connection, position, made)
        self.visits += 1
        self.stored.append(made)

    def check(self) -> None:
        """Asserts that the application can work, no event is lost or doubled, and no transaction stays open."""
        self.visit()
        assert actual(self.engine) == expected(self.stored)
        if open_ones := IN_TRANSACTION.get(self.engine.dialect.name):
            until(lambda: self.value(open_ones) == 0)

    def check_nothing_is_left(self) -> None:
        """Asserts that only the live tables exist, as after a whole run."""
        assert tables(self.engine) == {"stored_events", *TABLES}

    def value(self, query: str) -> Any:
        """The single value of a query; None: it has no row."""
        with self.engine.connect() as connection:
            return connection.exec_driver_sql(query).scalar_one_or_none()

    def state(self, run_id: str) -> str | None:
        """The state of a run in the ledger; None: the ledger has no such run."""
        if not sa.inspect(self.engine).has_table("projection_rebuild_runs"):
            return None
        found: str | None = self.value(f"SELECT state FROM projection_rebuild_runs WHERE run_id = '{run_id}'")
        return found

    def forget_all_runs(self) -> None:
        """Drops the ledger, so that the next run is the first one."""
        with self.engine.begin() as connection:
            for name in sa.inspect(connection).get_table_names():
                if name.startswith("projection_rebuild"):
                    connection.exec_driver_sql(f"DROP TABLE {name}")


def project(connection: sa.Connection, position: int, stored: dict[str, Any]) -> None:
    """Projects an event inline, within the transaction that appends it."""
    event = Event(
        position=position,
        stream=stored["aggregate_uuid"],
        type=stored["event_class"],
        payload=stored["event_properties"],
        recorded_at="",
        version=None,
        metadata=None,
    )
    for projector in PROJECTORS:
        project_live(connection, projector, event)


def append(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    """Appends and projects events as the application does, each in a transaction."""
    for event in stored:
        with unit_of_work(engine) as connection:
            inserted = connection.execute(shop.stored_events.insert().values(**event))
            project(connection, inserted.inserted_primary_key[0], event)  # type: ignore[index]
