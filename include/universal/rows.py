"""The row classes of the six read models. Amounts of money are whole cents."""

from __future__ import annotations

from projection_rebuild.authoring import row


@row("subscriptions", key="id", stream="id")
class Subscription:
    id: str
    user_id: int
    name: str
    category: str
    price_cents: int
    status: str
    started_on: str
    renews_on: str | None
    cancelled_on: str | None = None
    renewals: int = 0


@row("subscription_items", key="id", lookups=["subscription_id"], stream="subscription_id")
class SubscriptionItem:
    id: str
    subscription_id: str
    description: str | None
    quantity: int


@row("payment_history", key="id", stream="subscription_id")
class Payment:
    id: str
    subscription_id: str
    amount_cents: int
    status: str
    reason: str | None
    paid_at: str


@row("expenses", key="id")
class Expense:
    id: str
    user_id: int
    category: str
    amount_cents: int
    quantity: int
    note: str | None
    spent_on: str


@row("category_summaries", key=("user_id", "category"))
class CategorySummary:
    user_id: int
    category: str
    expenses: int = 0
    total_cents: int = 0


@row("monthly_summaries", key=("user_id", "month"))
class MonthlySummary:
    user_id: int
    month: str
    expenses: int = 0
    total_cents: int = 0
