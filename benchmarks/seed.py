"""The seed's way: one event at a time through an ORM, a commit per event; as Spatie's Projectionist does it in Laravel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, registry

from benchmarks import tables
from benchmarks.store import Store
from include.universal.schema import stored_events

PAGE = 1_000
"""Events read at a time."""

Payload = dict[str, Any]


class Model:
    """Attributes are columns."""

    def __init__(self, **columns: Any) -> None:
        for name, value in columns.items():
            setattr(self, name, value)


class Projectors:
    """The four projectors over ORM models; each handler loads, changes and adds objects.

    :param models: the mapped class of each table
    """

    def __init__(self, session: Session, models: dict[str, type[Model]]) -> None:
        self._session = session
        self._models = models
        self._handlers: dict[str, Callable[[str, Payload], None]] = {
            "SubscriptionCreated": self._created,
            "SubscriptionRenewed": self._renewed,
            "SubscriptionPriceChanged": self._price_changed,
            "SubscriptionCancelled": self._cancelled,
            "ExpenseRecorded": self._recorded,
            "ExpenseRecategorised": self._recategorised,
            "ExpenseDeleted": self._deleted,
        }

    def handle(self, event: Any) -> None:
        """Projects one event and commits."""
        self._handlers[event.event_class](event.aggregate_uuid, event.event_properties)
        self._session.commit()

    def _get(self, table: str, key: Any) -> Any:
        return self._session.get_one(self._models[table], key)

    def _created(self, stream: str, said: Payload) -> None:
        columns = {name: said[name] for name in ("user_id", "name", "category", "price_cents")}
        days = {name: date.fromisoformat(said[name]) for name in ("started_on", "renews_on")}
        self._session.add(self._models["subscriptions"](id=stream, status="active", renewals=0, **columns, **days))

    def _renewed(self, stream: str, said: Payload) -> None:
        subscription = self._get("subscriptions", stream)
        subscription.renews_on = date.fromisoformat(said["renews_on"])
        subscription.renewals += 1

    def _price_changed(self, stream: str, said: Payload) -> None:
        self._get("subscriptions", stream).price_cents = said["price_cents"]

    def _cancelled(self, stream: str, said: Payload) -> None:
        subscription = self._get("subscriptions", stream)
        subscription.status = "cancelled"
        subscription.cancelled_on = date.fromisoformat(said["cancelled_on"])
        subscription.renews_on = None

    def _recorded(self, stream: str, said: Payload) -> None:
        columns = {name: said[name] for name in ("user_id", "category", "amount_cents", "quantity", "note")}
        expense = self._models["expenses"](id=said["expense_id"], spent_on=date.fromisoformat(said["spent_on"]), **columns)
        self._session.add(expense)
        self._sum("category_summaries", (said["user_id"], said["category"]), 1, said)
        self._sum("monthly_summaries", (said["user_id"], said["spent_on"][:7]), 1, said)

    def _recategorised(self, stream: str, said: Payload) -> None:
        self._get("expenses", said["expense_id"]).category = said["to_category"]
        self._sum("category_summaries", (said["user_id"], said["from_category"]), -1, said)
        self._sum("category_summaries", (said["user_id"], said["to_category"]), 1, said)

    def _deleted(self, stream: str, said: Payload) -> None:
        self._session.delete(self._get("expenses", said["expense_id"]))
        self._sum("category_summaries", (said["user_id"], said["category"]), -1, said)
        self._sum("monthly_summaries", (said["user_id"], said["spent_on"][:7]), -1, said)

    def _sum(self, table: str, key: tuple[int, str], sign: int, said: Payload) -> None:
        model = self._models[table]
        total = self._session.get(model, key)
        if total is None:
            names = sa.inspect(model).primary_key
            total = model(**{column.name: value for column, value in zip(names, key, strict=True)}, expenses=0, total_cents=0)
            self._session.add(total)
        found: Any = total
        found.expenses += sign
        found.total_cents += sign * said["amount_cents"]
        if found.expenses == 0:
            self._session.delete(found)


def run(store: Store, suffix: str, upto: int) -> float:
    """Fills the tables ``<name>_<suffix>``, which have all of their indexes from the start, from the first events.

    :returns: seconds
    """
    with store.engine.begin() as connection:
        tables.make(connection, suffix)
        for name in tables.names():
            tables.finish(connection, suffix, name)
    mapped = registry()
    models = {}
    for name in tables.names():
        models[name] = type(name, (Model,), {})
        mapped.map_imperatively(models[name], tables.copy_of(name, suffix)[0])
    try:
        with Session(store.engine) as session, store.engine.connect() as reading:
            projectors = Projectors(session, models)
            began = time.monotonic()
            for event in _events(reading, upto):
                projectors.handle(event)
            return time.monotonic() - began
    finally:
        mapped.dispose()


def _events(connection: sa.Connection, upto: int) -> Iterator[Any]:
    after = 0
    while after < upto:
        columns = (
            stored_events.c.id,
            stored_events.c.aggregate_uuid,
            stored_events.c.event_class,
            stored_events.c.event_properties,
        )
        page = sa.select(*columns).where(stored_events.c.id > after, stored_events.c.id <= upto).order_by(stored_events.c.id)
        rows = connection.execute(page.limit(PAGE)).all()
        # Nothing of it stays open while the page is worked on.
        connection.rollback()
        yield from rows
        after = rows[-1].id
