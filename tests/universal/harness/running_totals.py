"""A projector that looks at another one's table."""

from __future__ import annotations

from include.universal.projectors import MonthlySummaryProjector
from include.universal.rows import MonthlySummary
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rows.types import Rows, row


@row("running_totals", key="id")
class RunningTotal:
    id: str
    month_cents: int


class RunningTotalProjector(Projector):
    """What its customer has spent in the month, by the table of months."""

    owns = (RunningTotal,)
    reads = (MonthlySummary,)

    @handles("ExpenseRecorded")
    def recorded(self, event: Event, rows: Rows) -> None:
        month = rows.get(MonthlySummary, event["user_id"], event["spent_on"][:7])
        rows.add(RunningTotal(event["expense_id"], month.total_cents))


class MonthsAndTotals(Projector):
    composed_of = (MonthlySummaryProjector, RunningTotalProjector)
