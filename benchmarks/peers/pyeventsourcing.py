"""pyeventsourcing rebuilds the subscriptions with its ProjectionRunner; a program.

``python -m benchmarks.peers.pyeventsourcing URL UPTO TABLE`` fills an event store of its own (schema ``pyeventsourcing``) with the
first events, rebuilds TABLE from it and prints ``{"seconds": ...}``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import AggregateEvent
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg.sql import SQL, Identifier

from include.universal.schema import stored_events

SCHEMA = "pyeventsourcing"
PATIENCE = 600.0
"""Seconds after which the rebuild has failed."""


class Created(AggregateEvent):
    user_id: int
    name: str
    category: str
    price_cents: int
    started_on: str
    renews_on: str


class Renewed(AggregateEvent):
    renews_on: str


class PriceChanged(AggregateEvent):
    price_cents: int


class Cancelled(AggregateEvent):
    cancelled_on: str


FIELDS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "SubscriptionCreated": (Created, ("user_id", "name", "category", "price_cents", "started_on", "renews_on")),
    "SubscriptionRenewed": (Renewed, ("renews_on",)),
    "SubscriptionPriceChanged": (PriceChanged, ("price_cents",)),
    "SubscriptionCancelled": (Cancelled, ("cancelled_on",)),
}


class Subscriptions(PostgresTrackingRecorder):
    """The table: each change and the position commit together, as its documentation shows it."""

    table = ""

    def change(self, statement: str, parameters: tuple[Any, ...], tracking: Tracking) -> None:
        """One statement, in which ``{}`` is the table."""
        with self.datastore.transaction(commit=True) as cursor:
            cursor.execute(SQL(statement).format(Identifier("public", self.table)), parameters)
            self._insert_tracking(cursor, tracking)


class SubscriptionProjection(Projection[Subscriptions]):
    """Each handler is one statement."""

    name = "subscriptions"

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """An event of another type changes nothing."""

    @process_event.register
    def created(self, event: Created, tracking: Tracking) -> None:
        self.view.change(
            "INSERT INTO {} (id, user_id, name, category, price_cents, status, started_on, renews_on, renewals) "
            "VALUES (%s, %s, %s, %s, %s, 'active', %s, %s, 0)",
            (
                str(event.originator_id),
                event.user_id,
                event.name,
                event.category,
                event.price_cents,
                event.started_on,
                event.renews_on,
            ),
            tracking,
        )

    @process_event.register
    def renewed(self, event: Renewed, tracking: Tracking) -> None:
        statement = "UPDATE {} SET renews_on = %s, renewals = renewals + 1 WHERE id = %s"
        self.view.change(statement, (event.renews_on, str(event.originator_id)), tracking)

    @process_event.register
    def price_changed(self, event: PriceChanged, tracking: Tracking) -> None:
        self.view.change("UPDATE {} SET price_cents = %s WHERE id = %s", (event.price_cents, str(event.originator_id)), tracking)

    @process_event.register
    def cancelled(self, event: Cancelled, tracking: Tracking) -> None:
        statement = "UPDATE {} SET status = 'cancelled', cancelled_on = %s, renews_on = NULL WHERE id = %s"
        self.view.change(statement, (event.cancelled_on, str(event.originator_id)), tracking)


class Store(Application[UUID]):
    """Its event store."""


def fill(store: Store, engine: sa.Engine, upto: int) -> int:
    """Puts the first events in.

    :returns: the position of the last one
    """
    events = _domain_events(engine, upto)
    last = 0
    while batch := list(islice(events, 1_000)):
        last = (store.recorder.insert_events([store.mapper.to_stored_event(each) for each in batch]) or [last])[-1]
    return last


def _domain_events(engine: sa.Engine, upto: int) -> Iterator[Any]:
    columns = stored_events.c
    query = (
        sa.select(columns.aggregate_uuid, columns.aggregate_version, columns.event_class, columns.event_properties)
        .where(columns.id <= upto, columns.event_class.in_(FIELDS))
        .order_by(columns.id)
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    for stream, version, kind, said in rows:
        event, names = FIELDS[kind]
        moment = datetime.now(UTC)
        yield event(UUID(stream), version, moment, **{name: said[name] for name in names})


def main() -> None:
    """Fills, rebuilds, reports."""
    address, upto, table = sys.argv[1:]
    url = sa.make_url(address)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": str(url.database),
        "POSTGRES_HOST": str(url.host),
        "POSTGRES_PORT": str(url.port),
        "POSTGRES_USER": str(url.username),
        "POSTGRES_PASSWORD": url.password or "none",
        "POSTGRES_SCHEMA": SCHEMA,
    }
    Subscriptions.table = table
    with Store(env) as store:
        last = fill(store, engine, int(upto))
    began = time.monotonic()
    with ProjectionRunner(
        application_class=Store, projection_class=SubscriptionProjection, view_class=Subscriptions, env=env
    ) as runner:
        runner.wait(last, timeout=PATIENCE)
        seconds = time.monotonic() - began
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
