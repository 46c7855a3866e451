"""The projectors of the example application: the only code that a team has to write."""

from __future__ import annotations

from collections.abc import Sequence

from include.universal.rows import CategorySummary, Expense, MonthlySummary, Payment, Subscription, SubscriptionItem
from include.universal.sets import category_statements, month_statements
from projection_rebuild.authoring import ByAggregate, ByPeriod, Event, Projector, Rows, handles


class SubscriptionProjector(Projector):
    """One row per subscription, in its current state."""

    owns = (Subscription,)
    part = ByAggregate({Subscription: "id"})

    @handles("SubscriptionCreated")
    def created(self, event: Event, rows: Rows) -> None:
        rows.add(
            Subscription(
                id=event.stream,
                user_id=event["user_id"],
                name=event["name"],
                category=event["category"],
                price_cents=event["price_cents"],
                status="active",
                started_on=event["started_on"],
                renews_on=event["renews_on"],
            )
        )

    @handles("SubscriptionRenewed")
    def renewed(self, event: Event, rows: Rows) -> None:
        subscription = rows.get(Subscription, event.stream)
        subscription.renews_on = event["renews_on"]
        subscription.renewals += 1

    @handles("SubscriptionPriceChanged")
    def price_changed(self, event: Event, rows: Rows) -> None:
        rows.get(Subscription, event.stream).price_cents = event["price_cents"]

    @handles("SubscriptionCancelled")
    def cancelled(self, event: Event, rows: Rows) -> None:
        subscription = rows.get(Subscription, event.stream)
        subscription.status = "cancelled"
        subscription.cancelled_on = event["cancelled_on"]
        subscription.renews_on = None


class SubscriptionItemProjector(Projector):
    """The items of each running subscription; a cancelled one has no items left."""

    owns = (SubscriptionItem,)
    part = ByAggregate({SubscriptionItem: "subscription_id"})
    depends_on = (SubscriptionProjector,)

    @handles("SubscriptionItemAdded")
    def added(self, event: Event, rows: Rows) -> None:
        rows.add(
            SubscriptionItem(
                id=event["item_id"],
                subscription_id=event.stream,
                description=event.get("description"),
                quantity=event["quantity"],
            )
        )

    @handles("SubscriptionItemRemoved")
    def removed(self, event: Event, rows: Rows) -> None:
        rows.remove(SubscriptionItem, event["item_id"])

    @handles("SubscriptionCancelled")
    def subscription_cancelled(self, event: Event, rows: Rows) -> None:
        for item in rows.where(SubscriptionItem, subscription_id=event.stream):
            rows.remove(SubscriptionItem, item.id)


class PaymentHistoryProjector(Projector):
    """Every attempt to pay for a subscription."""

    owns = (Payment,)
    part = ByAggregate({Payment: "subscription_id"})
    depends_on = (SubscriptionProjector,)

    @handles("PaymentReceived", "PaymentFailed")
    def attempted(self, event: Event, rows: Rows) -> None:
        rows.add(
            Payment(
                id=event["payment_id"],
                subscription_id=event.stream,
                amount_cents=event["amount_cents"],
                status="received" if event.type == "PaymentReceived" else "failed",
                reason=event.get("reason"),
                paid_at=event["at"],
            )
        )


class ExpenseProjector(Projector):
    """One row per expense that has not been deleted."""

    owns = (Expense,)
    part = ByAggregate({Expense: "user_id"}, of=lambda event: event["user_id"])
    partition_by = "user_id"

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        rows.add(
            Expense(
                id=event["expense_id"],
                user_id=event["user_id"],
                category=event["category"],
                amount_cents=event["amount_cents"],
                quantity=event.get("quantity", 1),
                note=event.get("note"),
                spent_on=event["spent_on"],
            )
        )

    @handles("ExpenseRecategorised")
    def recategorised(self, event: Event, rows: Rows) -> None:
        rows.get(Expense, event["expense_id"]).category = event["to_category"]

    @handles("ExpenseDeleted")
    def deleted(self, event: Event, rows: Rows) -> None:
        rows.remove(Expense, event["expense_id"])


class CategorySummaryProjector(Projector):
    """The expenses of each user by category. They sum up many aggregates, so the order of events must not matter.

    Events carry all data that it needs, so it depends on no other table. A category has no row if and only if both of
    its sums are zero, so the result does not depend on how a replay groups events.
    """

    owns = (CategorySummary,)
    part = ByAggregate({CategorySummary: "user_id"}, of=lambda event: event["user_id"])
    partition_by = "user_id"

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return category_statements(database)

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        self._add(rows, event, event["category"], 1)

    @handles("ExpenseRecategorised")
    def recategorised(self, event: Event, rows: Rows) -> None:
        # Inline, the read of a row locks it. All transactions use one order, so that two of them that move expenses
        # in opposite directions wait for each other and do not deadlock.
        for category, sign in sorted([(event["from_category"], -1), (event["to_category"], 1)]):
            self._add(rows, event, category, sign)

    @handles("ExpenseDeleted")
    def deleted(self, event: Event, rows: Rows) -> None:
        self._add(rows, event, event["category"], -1)

    def _add(self, rows: Rows, event: Event, category: str, sign: int) -> None:
        summary = rows.get_or_add(CategorySummary, event["user_id"], category)
        summary.expenses += sign
        summary.total_cents += sign * event["amount_cents"]
        if summary.expenses == summary.total_cents == 0:
            rows.remove(CategorySummary, event["user_id"], category)


class MonthlySummaryProjector(Projector):
    """The expenses of each user by month; a month has no row if and only if both of its sums are zero."""

    owns = (MonthlySummary,)
    part = ByPeriod({MonthlySummary: "month"}, of=lambda event: event["spent_on"][:7], at=lambda moment: f"{moment:%Y-%m}")
    partition_by = "user_id"

    @classmethod
    def statements(cls, database: str) -> Sequence[str]:
        return month_statements(database)

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        self._add(rows, event, 1)

    @handles("ExpenseDeleted")
    def deleted(self, event: Event, rows: Rows) -> None:
        self._add(rows, event, -1)

    def _add(self, rows: Rows, event: Event, sign: int) -> None:
        month = event["spent_on"][:7]
        summary = rows.get_or_add(MonthlySummary, event["user_id"], month)
        summary.expenses += sign
        summary.total_cents += sign * event["amount_cents"]
        if summary.expenses == summary.total_cents == 0:
            rows.remove(MonthlySummary, event["user_id"], month)


ALL: tuple[type[Projector], ...] = (
    SubscriptionProjector,
    SubscriptionItemProjector,
    PaymentHistoryProjector,
    ExpenseProjector,
    CategorySummaryProjector,
    MonthlySummaryProjector,
)
