"""What the read models must hold, worked out without any projector: the answer that rebuilds are held against.

Deliberately shares no code with the projectors or with the loader of the CDNOW file.
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
"""The six tables, by the columns that identify a row."""


def expected_tables(event_store: sa.Engine | sa.Connection, where: str = "") -> dict[str, Table]:
    """All six tables as they follow from the stored events: ``{table: {key: the other columns by name order}}``.

    :param event_store: a connection reads in the transaction that it is in
    :param where: ``WHERE ...``, where some events are not to be projected yet
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
        "category_summaries": _keyed("category_summaries", _grouped(expenses, "category", lambda each: each["category"])),
        "monthly_summaries": _keyed("monthly_summaries", _grouped(expenses, "month", lambda each: each["spent_on"][:7])),
    }


def actual_tables(read_models: sa.Engine | sa.Connection, suffix: str = "") -> dict[str, Table]:
    """The six tables as they are in a database, in the same form; ``suffix`` reads ``_rebuild`` or ``_old`` ones."""
    with _connected(read_models) as connection:
        return {
            table: _keyed(table, (dict(row._mapping) for row in connection.execute(sa.text(f"SELECT * FROM {table}{suffix}"))))  # noqa: S608
            for table in KEYS
        }


def cdnow_totals(path: Path) -> tuple[Table, Table]:
    """``expenses`` without its ids, and ``monthly_summaries``, straight from the text file.

    :returns: ``{(customer, day, cents, CDs): how many}`` and ``{(customer, month): (purchases, cents)}``
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
    return {key: (count,) for key, count in purchases.items()}, {key: tuple(both) for key, both in months.items()}


@contextmanager
def _connected(to: sa.Engine | sa.Connection) -> Iterator[sa.Connection]:
    if isinstance(to, sa.Connection):
        yield to
        return
    with to.connect() as connection:
        yield connection


def _subscriptions(facts: Iterable[Fact]) -> Iterable[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, stream, said in facts:
        if kind == "SubscriptionCreated":
            columns = {key: said[key] for key in ("user_id", "name", "category", "price_cents", "started_on", "renews_on")}
            found[stream] = {**columns, "id": stream, "status": "active", "cancelled_on": None, "renewals": 0}
        elif kind == "SubscriptionRenewed":
            found[stream].update(renews_on=said["renews_on"], renewals=found[stream]["renewals"] + 1)
        elif kind == "SubscriptionPriceChanged":
            found[stream]["price_cents"] = said["price_cents"]
        elif kind == "SubscriptionCancelled":
            found[stream].update(status="cancelled", cancelled_on=said["cancelled_on"], renews_on=None)
    return found.values()


def _items(facts: Iterable[Fact]) -> Iterable[dict[str, Any]]:
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for kind, stream, said in facts:
        if kind == "SubscriptionItemAdded":
            columns = {"id": said["item_id"], "description": said["description"], "quantity": said["quantity"]}
            found[stream][said["item_id"]] = {"subscription_id": stream, **columns}
        elif kind == "SubscriptionItemRemoved":
            del found[stream][said["item_id"]]
        elif kind == "SubscriptionCancelled":
            found.pop(stream, None)
    return [each for items in found.values() for each in items.values()]


def _payments(facts: Iterable[Fact]) -> Iterable[dict[str, Any]]:
    return [
        {
            "id": said["payment_id"],
            "subscription_id": stream,
            "amount_cents": said["amount_cents"],
            "status": kind.removeprefix("Payment").lower(),
            "reason": said.get("reason"),
            "paid_at": said["at"],
        }
        for kind, stream, said in facts
        if kind in ("PaymentReceived", "PaymentFailed")
    ]


def _expenses(facts: Iterable[Fact]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind, _, said in facts:
        if kind == "ExpenseRecorded":
            columns = {key: said[key] for key in ("user_id", "category", "amount_cents", "quantity", "note", "spent_on")}
            found[said["expense_id"]] = {"id": said["expense_id"], **columns}
        elif kind == "ExpenseRecategorised":
            found[said["expense_id"]]["category"] = said["to_category"]
        elif kind == "ExpenseDeleted":
            del found[said["expense_id"]]
    return list(found.values())


def _grouped(expenses: Iterable[dict[str, Any]], name: str, group: Callable[[dict[str, Any]], str]) -> Iterable[dict[str, Any]]:
    totals: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for each in expenses:
        total = totals[each["user_id"], group(each)]
        total[0] += 1
        total[1] += each["amount_cents"]
    return [{"user_id": key[0], name: key[1], "expenses": each[0], "total_cents": each[1]} for key, each in totals.items()]


def _keyed(table: str, rows: Iterable[dict[str, Any]]) -> Table:
    keys = KEYS[table]
    return {
        tuple(_plain(row[key]) for key in keys): tuple(_plain(row[name]) for name in sorted(row) if name not in keys)
        for row in rows
    }


def _plain(value: Any) -> Any:
    """The same value for the same fact, whatever a driver makes of it."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, date):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, str):
        # SQLite keeps the fraction that SQLAlchemy gives to a time.
        return value.removesuffix(".000000")
    return value
