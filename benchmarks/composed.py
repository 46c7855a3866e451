"""The same four projections with fewer passes over the events: what a team does that cares for the length of its rebuilds."""

from __future__ import annotations

from include.universal.projectors import (
    CategorySummaryProjector,
    ExpenseProjector,
    MonthlySummaryProjector,
    SubscriptionProjector,
)
from projection_rebuild.authoring.projector import Projector


class SpendingProjector(Projector):
    """Expenses and their summaries in one pass: each of their events is read and decoded once."""

    composed_of = (ExpenseProjector, CategorySummaryProjector, MonthlySummaryProjector)
    partition_by = "user_id"


COMPOSED: tuple[type[Projector], ...] = (SubscriptionProjector, SpendingProjector)
