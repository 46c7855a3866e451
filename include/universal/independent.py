"""Computes the correct content of the read models without any projector, as a reference for rebuilds.

It deliberately shares no code with the projectors or with the loader of the CDNOW file.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

Table = dict[tuple[Any, ...], tuple[Any, ...]]
Fact = tuple[str, str, dict[str, Any]]

KEYS = {
    "subscriptions": ("id",),
    "subscription_items": ("id",),
    "payment_history": ("id",),
    "expenses": ("id",),
    "category_summaries": ("user_id", "category"),
    "monthly_summaries": ("user_id", "month"),
}
"""The six tables, each with the columns that identify a row."""


def expected_tables(event_store: sa.Engine | sa.Connection, where: str = "") -> dict[str, Table]:
    """Computes all six tables from the stored events: ``{table: {key: the other columns by name order}}``.

    :param event_store: a connection reads within its current transaction
    :param where: a ``WHERE`` clause that selects events; empty: all events
    """
    with _connected(event_store) as connection:
        rows = connection.execute(
            sa.text(f"SELECT event_class, aggregate_uuid, event_properties FROM stored_events {where} ORDER BY id")  # noqa: S608
        ).all()
    facts = [
        (kind, stream, properties if isinstance(properties, dict) else json.loads(properties))
        for kind, stream, properties in rows
    ]
    expenses = _expenses(facts)
    return {
        "subscriptions": _keyed("subscriptions", _subscriptions(facts)),
        "subscription_items": _keyed("subscription_items", _items(facts)),
        "payment_history": _keyed("payment_history", _payments(facts)),
        "expenses": _keyed("expenses", expenses),
        "category_summaries": _keyed("category_summaries", _grouped(expenses, "category", lambda expense: expense["category"])),
        "monthly_summaries": _keyed("monthly_summaries", _grouped(expenses, "month", lambda expense: expense["spent_on"][:7])),
    }


def actual_tables(read_models: sa.Engine | sa.Connection, suffix: str = "") -> dict[str, Table]:
    """Reads the six tables from a database, in the form of :func:`expected_tables`.

    :param suffix: ``_rebuild`` or ``_old`` to read those tables; empty: the live ones
    """
    with _connected(read_models) as connection:
        return {
            table: _keyed(table, (dict(row._mapping) for row in connection.execute(sa.text(f"SELECT * FROM {table}{suffix}"))))  # noqa: S608
            for table in KEYS
        }


def cdnow_totals(path: Path) -> tuple[Table, Table]:
    """Computes ``expenses`` without its ids, and ``monthly_summaries``, directly from the text file.

    :returns: ``{(customer, day, cents, CDs): (number of purchases,)}`` and ``{(customer, month): (purchases, cents)}``
    """
    purchases: dict[tuple[Any, ...], int] = defaultdict(int)
    months: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0])
    for line in path.read_text().split("\n"):
        if not line.strip():
            continue
        customer, day = int(line[7:11]), line[12:20]
        cds, cents = line[20:].split()[0], round(float(line[20:].split()[1]) * 100)
        purchases[customer, f"{day[:4]}-{day[4:6]}-{day[6:]}", cents, int(cds)] += 1
        months[customer, f"{day[:4]}-{day[4:6]}"][0] += 1
        months[customer, f"{day[:4]}-{day[4:6]}"][1] += cents
    return {key: (count,) for key, count in purchases.items()}, {key: tuple(totals) for key, totals in months.items()}


@contextmanager
def _connected(database: sa.Engine | sa.Connection) -> Iterator[sa.Connection]:
    if isinstance(database, sa.Connection):
        yield database
        return
    with database.connect() as connection:
        yield connection


def _subscriptions(facts: Iterable[Fact]) -> Iterable[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for kind, stream, payload in facts:
        if kind == "SubscriptionCreated":
            columns = {key: payload[key] for key in ("user_id", "name", "category", "price_cents", "started_on", "renews_on")}
            rows[stream] = {**columns, "id": stream, "status": "active", "cancelled_on": None, "renewals": 0}
        elif kind == "SubscriptionRenewed":
            rows[stream].update(renews_on=payload["renews_on"], renewals=rows[stream]["renewals"] + 1)
        elif kind == "SubscriptionPriceChanged":
            rows[stream]["price_cents"] = payload["price_cents"]
        elif kind == "SubscriptionCancelled":
            rows[stream].update(status="cancelled", cancelled_on=payload["cancelled_on"], renews_on=None)
    return rows.values()


def _items(facts: Iterable[Fact]) -> Iterable[dict[str, Any]]:
    items_by_stream: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for kind, stream, payload in facts:
        if kind == "SubscriptionItemAdded":
            columns = {"id": payload["item_id"], "description": payload["description"], "quantity": payload["quantity"]}
            items_by_stream[stream][payload["item_id"]] = {"subscription_id": stream, **columns}
        elif kind == "SubscriptionItemRemoved":
            del items_by_stream[stream][payload["item_id"]]
        elif kind == "SubscriptionCancelled":
            items_by_stream.pop(stream, None)
    return [item for items in items_by_stream.values() for item in items.values()]


def _payments(facts: Iterable[Fact]) -> Iterable[dict[str, Any]]:
    return [
        {
            "id": payload["payment_id"],
            "subscription_id": stream,
            "amount_cents": payload["amount_cents"],
            "status": kind.removeprefix("Payment").lower(),
            "reason": payload.get("reason"),
            "paid_at": payload["at"],
        }
        for kind, stream, payload in facts
        if kind in ("PaymentReceived", "PaymentFailed")
    ]


def _expenses(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for kind, _, payload in facts:
        if kind == "ExpenseRecorded":
            columns = {key: payload[key] for key in ("user_id", "category", "amount_cents", "quantity", "note", "spent_on")}
            rows[payload["expense_id"]] = {"id": payload["expense_id"], **columns}
        elif kind == "ExpenseRecategorised":
            rows[payload["expense_id"]]["category"] = payload["to_category"]
        elif kind == "ExpenseDeleted":
            del rows[payload["expense_id"]]
    return list(rows.values())


def _grouped(expenses: Iterable[dict[str, Any]], name: str, group: Callable[[dict[str, Any]], str]) -> Iterable[dict[str, Any]]:
    totals: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for expense in expenses:
        total = totals[expense["user_id"], group(expense)]
        total[0] += 1
        total[1] += expense["amount_cents"]
    return [
        {"user_id": user, name: part, "expenses": number, "total_cents": cents}
        for (user, part), (number, cents) in totals.items()
    ]


def _keyed(table: str, rows: Iterable[dict[str, Any]]) -> Table:
    keys = KEYS[table]
    return {
        tuple(_plain(row[key]) for key in keys): tuple(_plain(row[name]) for name in sorted(row) if name not in keys)
        for row in rows
    }


def _plain(value: Any) -> Any:
    """A value in one form for all drivers: dates and times as text."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, date):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, str):
        # SQLite stores the fraction that SQLAlchemy adds to a time.
        return value.removesuffix(".000000")
    return value
