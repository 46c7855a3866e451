"""The example's read models, declared: the same tables as :mod:`include.universal.projectors` fills by handlers."""

from __future__ import annotations

from include.universal.rows import CategorySummary, Expense, MonthlySummary, Payment, Subscription, SubscriptionItem
from projection_rebuild.authoring import ByAggregate, ByPeriod, Projector
from projection_rebuild.authoring.declared import Entity, Groups, case, current, event, prefix


class DeclaredSubscriptions(Projector):
    """One row per subscription, in its current state."""

    part = ByAggregate({Subscription: "id"})
    declares = (
        Entity(Subscription, key=event.stream)
        .insert(
            "SubscriptionCreated",
            user_id=event.user_id,
            name=event.name,
            category=event.category,
            price_cents=event.price_cents,
            status="active",
            started_on=event.started_on,
            renews_on=event.renews_on,
        )
        .update("SubscriptionRenewed", renews_on=event.renews_on, renewals=current.renewals + 1)
        .update("SubscriptionPriceChanged", price_cents=event.price_cents)
        .update("SubscriptionCancelled", status="cancelled", cancelled_on=event.cancelled_on, renews_on=None),
    )


class DeclaredItems(Projector):
    """What each running subscription consists of; a cancelled one has no items left."""

    part = ByAggregate({SubscriptionItem: "subscription_id"})
    depends_on = (DeclaredSubscriptions,)
    declares = (
        Entity(SubscriptionItem, key=event.item_id)
        .insert(
            "SubscriptionItemAdded",
            subscription_id=event.stream,
            description=event.field("description", default=None),
            quantity=event.quantity,
        )
        .delete("SubscriptionItemRemoved")
        .delete_where("SubscriptionCancelled", subscription_id=event.stream),
    )


class DeclaredPayments(Projector):
    """Every attempt to pay for a subscription."""

    part = ByAggregate({Payment: "subscription_id"})
    depends_on = (DeclaredSubscriptions,)
    declares = (
        Entity(Payment, key=event.payment_id).insert(
            "PaymentReceived",
            "PaymentFailed",
            subscription_id=event.stream,
            amount_cents=event.amount_cents,
            status=case((event.type == "PaymentReceived", "received"), otherwise="failed"),
            reason=event.field("reason", default=None),
            paid_at=event.at,
        ),
    )


class DeclaredExpenses(Projector):
    """One row per expense that has not been deleted."""

    part = ByAggregate({Expense: "user_id"}, of=lambda each: each["user_id"])
    partition_by = "user_id"
    declares = (
        Entity(Expense, key=event.expense_id)
        .insert(
            "ExpenseRecorded",
            user_id=event.user_id,
            category=event.category,
            amount_cents=event.amount_cents,
            quantity=event.field("quantity", default=1),
            note=event.field("note", default=None),
            spent_on=event.spent_on,
        )
        .update("ExpenseRecategorised", category=event.to_category)
        .delete("ExpenseDeleted"),
    )


class DeclaredCategories(Projector):
    """What each user spends by category."""

    part = ByAggregate({CategorySummary: "user_id"}, of=lambda each: each["user_id"])
    partition_by = "user_id"
    declares = (
        Groups(CategorySummary)
        .add("ExpenseRecorded", user_id=event.user_id, category=event.category, expenses=1, total_cents=event.amount_cents)
        .subtract("ExpenseDeleted", user_id=event.user_id, category=event.category, expenses=1, total_cents=event.amount_cents)
        .subtract(
            "ExpenseRecategorised",
            user_id=event.user_id,
            category=event.from_category,
            expenses=1,
            total_cents=event.amount_cents,
        )
        .add(
            "ExpenseRecategorised", user_id=event.user_id, category=event.to_category, expenses=1, total_cents=event.amount_cents
        ),
    )


class DeclaredMonths(Projector):
    """What each user spends by month."""

    part = ByPeriod({MonthlySummary: "month"}, of=lambda each: each["spent_on"][:7], at=lambda moment: f"{moment:%Y-%m}")
    partition_by = "user_id"
    declares = (
        Groups(MonthlySummary)
        .add(
            "ExpenseRecorded", user_id=event.user_id, month=prefix(event.spent_on, 7), expenses=1, total_cents=event.amount_cents
        )
        .subtract(
            "ExpenseDeleted", user_id=event.user_id, month=prefix(event.spent_on, 7), expenses=1, total_cents=event.amount_cents
        ),
    )


DECLARED: tuple[type[Projector], ...] = (
    DeclaredSubscriptions,
    DeclaredItems,
    DeclaredPayments,
    DeclaredExpenses,
    DeclaredCategories,
    DeclaredMonths,
)
