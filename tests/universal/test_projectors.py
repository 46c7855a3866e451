"""Handlers as plain functions of an event and rows, without a database."""

from __future__ import annotations

from typing import Any

import pytest

from include.universal import projectors
from include.universal.rows import CategorySummary, Expense, MonthlySummary, Payment, Subscription, SubscriptionItem
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import RowError
from projection_rebuild.rows.buffer import RowBuffer

STARTED = {
    "user_id": 3,
    "name": "Gym",
    "category": "health",
    "price_cents": 2500,
    "started_on": "2024-01-31",
    "renews_on": "2024-03-01",
}


def after(projector: type[Projector], *events: tuple[str, dict[str, Any]]) -> RowBuffer:
    rows = RowBuffer()
    for position, (kind, payload) in enumerate(events, start=1):
        projector().project(Event(position=position, stream="s", type=kind, payload=payload), rows)
    return rows


def recorded(expense: str, category: str, cents: int, day: str, user: int = 3) -> tuple[str, dict[str, Any]]:
    payload = {"expense_id": expense, "user_id": user, "category": category, "amount_cents": cents, "spent_on": day}
    return "ExpenseRecorded", payload


def moved(expense: str, source: str, target: str, cents: int) -> tuple[str, dict[str, Any]]:
    payload = {"expense_id": expense, "user_id": 3, "from_category": source, "to_category": target, "amount_cents": cents}
    return "ExpenseRecategorised", payload


def deleted(expense: str, category: str, cents: int, day: str) -> tuple[str, dict[str, Any]]:
    return "ExpenseDeleted", recorded(expense, category, cents, day)[1]


def test_a_subscription_starts_active() -> None:
    rows = after(projectors.SubscriptionProjector, ("SubscriptionCreated", STARTED))
    assert rows.all(Subscription) == [
        Subscription("s", 3, "Gym", "health", 2500, "active", "2024-01-31", "2024-03-01", cancelled_on=None, renewals=0)
    ]


def test_renewals_and_prices_change_the_subscription() -> None:
    rows = after(
        projectors.SubscriptionProjector,
        ("SubscriptionCreated", STARTED),
        ("SubscriptionRenewed", {"renews_on": "2024-03-31"}),
        ("SubscriptionPriceChanged", {"price_cents": 2750}),
        ("SubscriptionRenewed", {"renews_on": "2024-04-30"}),
    )
    (subscription,) = rows.all(Subscription)
    assert (subscription.renewals, subscription.renews_on, subscription.price_cents) == (2, "2024-04-30", 2750)


def test_a_cancelled_subscription_renews_no_more() -> None:
    cancelled = ("SubscriptionCancelled", {"cancelled_on": "2024-02-10", "reason": None})
    rows = after(projectors.SubscriptionProjector, ("SubscriptionCreated", STARTED), cancelled)
    (subscription,) = rows.all(Subscription)
    assert (subscription.status, subscription.cancelled_on, subscription.renews_on) == ("cancelled", "2024-02-10", None)


def test_a_renewal_of_an_unknown_subscription_fails() -> None:
    with pytest.raises(RowError, match="subscriptions has no row"):
        after(projectors.SubscriptionProjector, ("SubscriptionRenewed", {"renews_on": "2024-03-31"}))


def test_items_come_and_go() -> None:
    rows = after(
        projectors.SubscriptionItemProjector,
        ("SubscriptionItemAdded", {"item_id": "a", "description": "locker", "quantity": 1}),
        ("SubscriptionItemAdded", {"item_id": "b", "description": None, "quantity": 2}),
        ("SubscriptionItemRemoved", {"item_id": "a"}),
    )
    assert rows.all(SubscriptionItem) == [SubscriptionItem("b", "s", None, 2)]


def test_cancelling_takes_only_the_items_of_this_subscription() -> None:
    rows = after(
        projectors.SubscriptionItemProjector,
        ("SubscriptionItemAdded", {"item_id": "a", "description": None, "quantity": 1}),
    )
    rows.add(SubscriptionItem("z", "another", None, 1))
    cancelled = Event(position=9, stream="s", type="SubscriptionCancelled", payload={"cancelled_on": "2024-02-10"})
    projectors.SubscriptionItemProjector().project(cancelled, rows)
    assert [item.id for item in rows.all(SubscriptionItem)] == ["z"]


def test_payments_keep_both_outcomes() -> None:
    rows = after(
        projectors.PaymentHistoryProjector,
        ("PaymentFailed", {"payment_id": "1", "amount_cents": 2500, "reason": "card expired", "at": "2024-02-01 08:00:00"}),
        ("PaymentReceived", {"payment_id": "2", "amount_cents": 2500, "at": "2024-02-02 08:00:00"}),
    )
    assert rows.all(Payment) == [
        Payment("1", "s", 2500, "failed", "card expired", "2024-02-01 08:00:00"),
        Payment("2", "s", 2500, "received", None, "2024-02-02 08:00:00"),
    ]


def test_expenses_follow_their_own_id_not_the_stream() -> None:
    rows = after(
        projectors.ExpenseProjector,
        recorded("a", "music", 1000, "2024-01-05"),
        recorded("b", "travel", 500, "2024-01-06"),
        moved("b", "travel", "rent", 500),
        deleted("a", "music", 1000, "2024-01-05"),
    )
    (expense,) = rows.all(Expense)
    assert (expense.id, expense.category, expense.amount_cents, expense.quantity) == ("b", "rent", 500, 1)


def test_category_summaries_are_a_group_by_over_expenses() -> None:
    rows = after(
        projectors.CategorySummaryProjector,
        recorded("a", "music", 1000, "2024-01-05"),
        recorded("b", "music", 500, "2024-02-06"),
        recorded("c", "music", 70, "2024-02-06", user=4),
        moved("b", "music", "rent", 500),
    )
    assert rows.all(CategorySummary) == [
        CategorySummary(3, "music", 1, 1000),
        CategorySummary(3, "rent", 1, 500),
        CategorySummary(4, "music", 1, 70),
    ]


@pytest.mark.parametrize("target", ["rent", "music"])
def test_the_only_expense_of_a_category_takes_its_row_along(target: str) -> None:
    rows = after(
        projectors.CategorySummaryProjector, recorded("a", "music", 1000, "2024-01-05"), moved("a", "music", target, 1000)
    )
    assert rows.all(CategorySummary) == [CategorySummary(3, target, 1, 1000)]


def test_months_count_by_the_day_of_the_expense() -> None:
    rows = after(
        projectors.MonthlySummaryProjector,
        recorded("a", "music", 1000, "2024-01-31"),
        recorded("b", "rent", 500, "2024-01-01"),
        recorded("c", "rent", 70, "2024-02-01"),
        deleted("c", "rent", 70, "2024-02-01"),
    )
    assert rows.all(MonthlySummary) == [MonthlySummary(3, "2024-01", 2, 1500)]


@pytest.mark.parametrize("projector", [projectors.CategorySummaryProjector, projectors.MonthlySummaryProjector])
def test_summaries_do_not_mind_the_order_of_aggregates(projector: type[Projector]) -> None:
    one = [recorded("a", "music", 1000, "2024-01-05"), deleted("a", "music", 1000, "2024-01-05")]
    other = [recorded("b", "music", 500, "2024-01-06")]
    (owned,) = projector.owns
    assert after(projector, *one, *other).all(owned) == after(projector, *other, *one).all(owned)
