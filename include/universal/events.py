"""Events of the application: a deterministic generator of any number of them, and the two ways of storing them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import sqlalchemy as sa

from include.projection_rebuild.events import Event
from include.universal.schema import stored_events

BEGINNING = datetime(2023, 1, 1, tzinfo=UTC)
CATEGORIES = ("groceries", "music", "travel", "café & bars", "Bücher", "health", "rent", "utilities")
# Text that breaks what is quoted, escaped or split carelessly.
TEXTS = (
    "weekly",
    "O'Brien's",
    'the "big" one',
    "tab\there",
    "two\nlines",
    r"back\slash \N",
    "100% off %s",
    "naïve ☕ 日本",
    "",
    None,
)
SERVICES = ("Streaming", "News", "Gym", "Cloud storage", "Zeitung", "Phone: 5G")


class NewEvent(NamedTuple):
    """An event that has no position yet.

    :param stream: the aggregate's UUID
    :param version: its place in the stream, from 1
    :param recorded_at: ``YYYY-MM-DD HH:MM:SS`` in UTC
    """

    stream: str
    version: int
    type: str
    payload: dict[str, Any]
    recorded_at: str


def generate(count: int, seed: int = 7, users: int = 500) -> Iterator[NewEvent]:
    """``count`` events of interleaved aggregates, about ten each; the same for the same arguments.

    Memory grows with the aggregates that are alive at one time, not with ``count``.
    """
    return islice(_Life(seed, users).events(), count)


class _Life:
    """Users opening subscriptions and recording expenses; only what can follow an aggregate's past happens to it."""

    def __init__(self, seed: int, users: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - has to repeat, not to be secret
        self._users = users
        self._seconds = 0
        self._alive: list[Iterator[tuple[str, dict[str, Any]]]] = []

    def events(self) -> Iterator[NewEvent]:
        streams: dict[int, tuple[str, int]] = {}
        while True:
            while len(self._alive) < 200:
                self._alive.append(self._subscription() if self._random.random() < 0.6 else self._expenses())
            at = self._random.randrange(len(self._alive))
            life = self._alive[at]
            step = next(life, None)
            if step is None:
                self._alive[at] = self._alive[-1]
                self._alive.pop()
                streams.pop(id(life), None)
                continue
            stream, version = streams.get(id(life)) or (self._uuid(), 0)
            streams[id(life)] = stream, version + 1
            self._seconds += self._random.randrange(60)
            moment = f"{BEGINNING + timedelta(seconds=self._seconds):%Y-%m-%d %H:%M:%S}"
            yield NewEvent(stream, version + 1, step[0], step[1], moment)

    def _subscription(self) -> Iterator[tuple[str, dict[str, Any]]]:
        pick, user = self._random, self._random.randrange(1, self._users + 1)
        price = pick.randrange(199, 4999)
        started = self._today()
        yield (
            "SubscriptionCreated",
            {
                "user_id": user,
                "name": pick.choice(SERVICES),
                "category": pick.choice(CATEGORIES),
                "price_cents": price,
                "started_on": f"{started}",
                "renews_on": f"{started + timedelta(days=30)}",
            },
        )
        items: list[str] = []
        for month in range(1, pick.randrange(2, 8)):
            if pick.random() < 0.5:
                items.append(self._uuid())
                yield (
                    "SubscriptionItemAdded",
                    {"item_id": items[-1], "description": pick.choice(TEXTS), "quantity": pick.randrange(1, 5)},
                )
            if items and pick.random() < 0.2:
                yield "SubscriptionItemRemoved", {"item_id": items.pop(pick.randrange(len(items)))}
            if pick.random() < 0.15:
                price = max(99, price + pick.randrange(-200, 500))
                yield "SubscriptionPriceChanged", {"price_cents": price}
            yield from self._payment(price)
            yield "SubscriptionRenewed", {"renews_on": f"{started + timedelta(days=30 * (month + 1))}"}
        if pick.random() < 0.6:
            yield "SubscriptionCancelled", {"cancelled_on": f"{self._today()}", "reason": pick.choice(TEXTS)}

    def _payment(self, price: int) -> Iterator[tuple[str, dict[str, Any]]]:
        if self._random.random() < 0.1:
            yield (
                "PaymentFailed",
                {"payment_id": self._uuid(), "amount_cents": price, "reason": self._random.choice(TEXTS), "at": self._now()},
            )
        yield "PaymentReceived", {"payment_id": self._uuid(), "amount_cents": price, "at": self._now()}

    def _expenses(self) -> Iterator[tuple[str, dict[str, Any]]]:
        pick, user = self._random, self._random.randrange(1, self._users + 1)
        for _ in range(pick.randrange(3, 12)):
            category, spent_on = pick.choice(CATEGORIES), f"{self._today()}"
            same = {"expense_id": self._uuid(), "user_id": user, "amount_cents": pick.randrange(100, 20_000)}
            yield (
                "ExpenseRecorded",
                same | {"category": category, "quantity": pick.randrange(1, 4), "note": pick.choice(TEXTS), "spent_on": spent_on},
            )
            if pick.random() < 0.2:
                to_category = pick.choice(CATEGORIES)
                yield "ExpenseRecategorised", same | {"from_category": category, "to_category": to_category}
                category = to_category
            if pick.random() < 0.1:
                yield "ExpenseDeleted", same | {"category": category, "spent_on": spent_on}

    def _uuid(self) -> str:
        return str(UUID(int=self._random.getrandbits(128), version=4))

    def _today(self) -> date:
        return (BEGINNING + timedelta(seconds=self._seconds)).date()

    def _now(self) -> str:
        return f"{BEGINNING + timedelta(seconds=self._seconds):%Y-%m-%d %H:%M:%S}"


_COLUMNS = "aggregate_uuid, aggregate_version, event_class, event_properties, meta_data, created_at"


def append_all(engine: sa.Engine, events: Iterable[NewEvent], batch: int = 5_000) -> int:
    """Stores many events in the order given, as a one-off load.

    :returns: how many
    """
    mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"
    statement = f"INSERT INTO {stored_events.name} ({_COLUMNS}) VALUES ({', '.join([mark] * 6)})"  # noqa: S608 - names of ours
    stored = 0
    remaining = iter(events)
    while rows := [_values(event) for event in islice(remaining, batch)]:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement, rows)
        stored += len(rows)
    return stored


def append(connection: sa.Connection, event: NewEvent) -> Event:
    """Stores one event in the caller's transaction.

    :returns: the event with its position, ready to be projected
    """
    made = connection.execute(
        stored_events.insert().values(
            aggregate_uuid=event.stream,
            aggregate_version=event.version,
            event_class=event.type,
            event_properties=event.payload,
            meta_data={},
            created_at=datetime.fromisoformat(event.recorded_at),
        )
    )
    position = made.inserted_primary_key
    if position is None:
        raise RuntimeError("the database gave the event no position")
    return Event(
        position=int(position[0]),
        stream=event.stream,
        type=event.type,
        payload=event.payload,
        recorded_at=event.recorded_at,
        version=event.version,
    )


def _values(event: NewEvent) -> tuple[Any, ...]:
    return event.stream, event.version, event.type, orjson.dumps(event.payload).decode(), "{}", event.recorded_at
