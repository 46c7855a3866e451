"""Events of the application: a deterministic generator, and two ways to store events: in bulk and one by one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import orjson
import sqlalchemy as sa

from include.universal.schema import stored_events
from projection_rebuild.authoring import Event

BEGINNING = datetime(2023, 1, 1)  # noqa: DTZ001 - the store keeps UTC without an offset
SECONDS_BETWEEN_EVENTS = 60
CATEGORIES = ("groceries", "music", "travel", "café & bars", "Bücher", "health", "rent", "utilities")
SERVICES = ("Streaming", "News", "Gym", "Cloud storage", "Zeitung", "Phone: 5G")
# Texts that expose careless quoting, escaping or splitting.
TEXTS = (
    "weekly",
    "O'Brien's",
    'the "big" one',
    "tab\there",
    "two\nlines\r\nor three",
    r"back\slash \N \. \x41",
    "100% off %s {} :name ?",
    "naïve ☕ 日本 🛒",
    "",
    None,
)

T = TypeVar("T")
Step = tuple[str, dict[str, Any]]


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


def generate(count: int, seed: int = 7, users: int = 500, at_once: int = 400) -> Iterator[NewEvent]:
    """Yields ``count`` events of interleaved aggregates, about ten each. The same arguments give the same events.

    :param users: the number of users who share the aggregates
    :param at_once: the number of aggregates that are alive at one time; memory grows with it, not with ``count``
    """
    return islice(_Life(seed, users).events(at_once), count)


@dataclass(slots=True)
class _Stream:
    """A living aggregate. The generator takes its steps one at a time, between those of the others."""

    id: str
    steps: Iterator[Step]
    version: int = 0


class _Life:
    """Generates the life of users with subscriptions and expenses.

    Each event of an aggregate is valid after its earlier ones.
    """

    def __init__(self, seed: int, users: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - has to repeat, not to be secret
        self._users = users
        self._moment = BEGINNING
        self._now = ""

    def events(self, at_once: int) -> Iterator[NewEvent]:
        alive = [self._new_stream() for _ in range(at_once)]
        while True:
            self._moment += timedelta(seconds=self._below(SECONDS_BETWEEN_EVENTS))
            self._now = self._moment.isoformat(" ")
            index = self._below(len(alive))
            stream = alive[index]
            step = next(stream.steps, None)
            if step is None:
                alive[index] = self._new_stream()
                continue
            stream.version += 1
            yield NewEvent(stream.id, stream.version, *step, self._now)

    def _new_stream(self) -> _Stream:
        return _Stream(self._uuid(), self._subscription() if self._chance(0.5) else self._expenses())

    def _subscription(self) -> Iterator[Step]:
        price = 199 + self._below(4800)
        started = self._moment.date()
        yield (
            "SubscriptionCreated",
            {
                "user_id": self._user(),
                "name": self._pick(SERVICES),
                "category": self._pick(CATEGORIES),
                "price_cents": price,
                "started_on": f"{started}",
                "renews_on": _months_after(started, 1),
            },
        )
        items: list[str] = []
        for month in range(2, 4 + self._below(4)):
            yield from self._item_changes(items)
            if self._chance(0.15):
                price = max(99, price - 200 + self._below(700))
                yield "SubscriptionPriceChanged", {"price_cents": price}
            yield from self._payment(price)
            yield "SubscriptionRenewed", {"renews_on": _months_after(started, month)}
        if self._chance(0.6):
            yield "SubscriptionCancelled", {"cancelled_on": self._now[:10], "reason": self._pick(TEXTS)}

    def _item_changes(self, items: list[str]) -> Iterator[Step]:
        if self._chance(0.5):
            items.append(self._uuid())
            yield (
                "SubscriptionItemAdded",
                {"item_id": items[-1], "description": self._pick(TEXTS), "quantity": 1 + self._below(4)},
            )
        if items and self._chance(0.2):
            yield "SubscriptionItemRemoved", {"item_id": items.pop(self._below(len(items)))}

    def _payment(self, price: int) -> Iterator[Step]:
        if self._chance(0.1):
            yield (
                "PaymentFailed",
                {"payment_id": self._uuid(), "amount_cents": price, "reason": self._pick(TEXTS), "at": self._now},
            )
        yield "PaymentReceived", {"payment_id": self._uuid(), "amount_cents": price, "at": self._now}

    def _expenses(self) -> Iterator[Step]:
        user = self._user()
        kept: list[dict[str, Any]] = []
        for _ in range(4 + self._below(9)):
            kept.append(self._expense(user))
            yield "ExpenseRecorded", kept[-1] | {"quantity": 1 + self._below(3), "note": self._pick(TEXTS)}
            if kept and self._chance(0.2):
                index = self._below(len(kept))
                old, new = kept[index]["category"], self._pick(CATEGORIES)
                kept[index] = kept[index] | {"category": new}
                if new != old:
                    yield "ExpenseRecategorised", _without(kept[index], "category") | {"from_category": old, "to_category": new}
            if kept and self._chance(0.1):
                yield "ExpenseDeleted", kept.pop(self._below(len(kept)))

    def _expense(self, user: int) -> dict[str, Any]:
        return {
            "expense_id": self._uuid(),
            "user_id": user,
            "category": self._pick(CATEGORIES),
            "amount_cents": 100 + self._below(20_000),
            "spent_on": self._now[:10],
        }

    def _user(self) -> int:
        return 1 + self._below(self._users)

    def _below(self, limit: int) -> int:
        # Several times as fast as randrange, and as repeatable.
        return int(self._random.random() * limit)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _pick(self, values: Sequence[T]) -> T:
        return values[self._below(len(values))]

    def _uuid(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _months_after(day: date, months: int) -> str:
    return f"{day + timedelta(days=30 * months)}"


def _without(payload: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != name}


_COLUMNS = ("aggregate_uuid", "aggregate_version", "event_class", "event_properties", "meta_data", "created_at")


def append_all(engine: sa.Engine, events: Iterable[NewEvent], batch: int = 5_000) -> int:
    """Stores many events in their given order, each batch in a transaction of its own.

    :param batch: the number of events in a transaction
    :returns: the number of stored events
    """
    target = f"{stored_events.name} ({', '.join(_COLUMNS)})"
    stored = 0
    remaining = iter(events)
    while rows := [_values(event) for event in islice(remaining, batch)]:
        with engine.begin() as connection:
            _load(connection, target, rows)
        stored += len(rows)
    return stored


def _load(connection: sa.Connection, target: str, rows: list[tuple[Any, ...]]) -> None:
    if connection.dialect.name == "postgresql":
        driver: Any = connection.connection.driver_connection
        with driver.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    placeholder = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    placeholders = ", ".join([placeholder] * len(_COLUMNS))
    connection.exec_driver_sql(f"INSERT INTO {target} VALUES ({placeholders})", rows)  # noqa: S608 - our names


def _values(event: NewEvent) -> tuple[Any, ...]:
    return event.stream, event.version, event.type, orjson.dumps(event.payload).decode(), "{}", event.recorded_at


def append(connection: sa.Connection, event: NewEvent) -> Event:
    """Stores one event in the caller's transaction.

    :returns: the event with its position, for the projectors
    :raises RuntimeError: the database returned no position
    """
    inserted = connection.execute(
        stored_events.insert().values(
            aggregate_uuid=event.stream,
            aggregate_version=event.version,
            event_class=event.type,
            event_properties=event.payload,
            meta_data={},
            created_at=datetime.fromisoformat(event.recorded_at),
        )
    )
    key = inserted.inserted_primary_key
    if key is None:
        raise RuntimeError("the database gave the event no position")
    return Event(
        position=key[0],
        stream=event.stream,
        type=event.type,
        payload=event.payload,
        recorded_at=event.recorded_at,
        version=event.version,
    )
