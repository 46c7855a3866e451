"""The results of the steps of a run: plain data, which the ledger stores and reports show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from projection_rebuild.model.positions import Place, said


class Sampled(BaseModel):
    """The result of a sample of one projector's aggregates.

    :param position: the sample has refolded events up to here, the position of the projector's checkpoint
    :param aggregates: how many aggregates the sample has refolded
    :param events: how many events they have
    :param rows: how many rows the sample has compared
    :param not_sampled: why the engine took no sample; empty: it took one
    :param remarks: what the sample has left out, and what its comparison cannot show
    :param findings: a few rows that differ from what their events project, by key
    :param differing: the aggregates of these rows
    """

    projector: str
    position: Place = None
    aggregates: int = 0
    events: int = 0
    rows: int = 0
    not_sampled: str = ""
    remarks: list[str] = []
    findings: list[str] = []
    differing: list[str] = []

    def describe(self) -> str:
        """One line for a log."""
        if self.not_sampled:
            return f"not sampled: {self.projector}, {self.not_sampled}"
        left = f" ({'; '.join(self.remarks)})" if self.remarks else ""
        return (
            f"sample: {self.projector}, {self.aggregates:,} aggregates refolded from {self.events:,} events up to {said(self.position)}, "
            f"{self.rows:,} rows compared{left}"
        )


class TableComparison(BaseModel):
    """The comparison of green and blue for one table.

    It only informs: blue changes meanwhile, and a rebuild may well change rows.

    :param drift_percent: the difference of green's row count from blue's, in percent of blue's
    :param samples: keys of a few differing rows of each kind, never their contents
    :param not_compared: columns that blue lacks; if a key column is among them, the engine only counts rows
    """

    table: str
    blue_rows: int
    green_rows: int
    drift_percent: float
    tolerance_percent: float
    identical: int
    differing: int
    only_blue: int
    only_green: int
    samples: dict[str, list[str]] = {}
    not_compared: list[str] = []

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{self.table}: {self.blue_rows:,} -> {self.green_rows:,} rows (drift {self.drift_percent:.2f} %, allowed "
            f"{self.tolerance_percent:g} %); {self.identical:,} identical, {self.differing:,} differ, {self.only_blue:,} only in "
            f"blue, {self.only_green:,} only in green"
            + (f"; new and not compared: {', '.join(self.not_compared)}" if self.not_compared else "")
        )


class Verification(BaseModel):
    """The result of a verification; ``failures`` decide whether it has passed.

    :param at: the time of the verification, in UTC; it identifies one verification of a run
    :param seconds: how long the verification took
    :param dead_letters: the number of dead letters by projector
    :param notes: facts about the store that inform an operator and do not fail the verification
    :param sample: the samples; runs of an earlier version have none
    """

    tables: list[TableComparison]
    failures: list[str]
    at: datetime | None = None
    seconds: float = 0.0
    dead_letters: dict[str, int] = {}
    notes: list[str] = []
    sample: list[Sampled] = []

    @property
    def passed(self) -> bool:
        """Whether green may replace blue."""
        return not self.failures

    def describe(self) -> str:
        """All findings as lines for a log."""
        tables = [table.describe() for table in self.tables]
        aside = [f"{name} has set {count:,} events aside" for name, count in self.dead_letters.items()]
        samples = [sampled.describe() for sampled in self.sample]
        return "\n".join([*tables, *aside, *self.notes, *samples, *(f"FAILED: {failure}" for failure in self.failures)])


PARTS = {
    "lock": "the engine takes the fence and locks the tables, and waits for the application's jobs",
    "drain": "the engine projects the last events",
    "count": "the engine counts the newest events, and rows of other tables that would lose their parents",
    "rename": "the engine writes the ledger and renames the tables",
    "after": "on MySQL and MariaDB the engine adds foreign keys, and renames them",
    "release": "the transaction commits, or the engine releases the locks",
}
"""The phases of a pause, in their order, with their meaning."""


def by_parts(parts: Mapping[str, float]) -> str:
    """The phases of a pause in milliseconds, for a log."""
    return ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in parts.items())


class SwapResult(BaseModel):
    """The result of the swap.

    :param position: F, the position up to which the swap has drained events into green; live writers project later
        events. None: the store was empty
    :param pause_seconds: the longest time that writers waited, in the attempt that succeeded
    :param attempts: the number of attempts
    :param in_doubt: the number of events that writers appended without a fence, since its connection had died
    :param left_on_old: changes to a live table between the last check and the swap, which only the old table has
    :param pause_parts: the seconds of the pause by phase, see :data:`PARTS`; empty if unknown, as after a crash
    """

    tables: list[str]
    position: Place
    pause_seconds: float
    attempts: int
    in_doubt: int = 0
    left_on_old: list[str] = []
    pause_parts: dict[str, float] = {}

    def describe(self) -> str:
        """One line for a log."""
        parts = f" ({by_parts(self.pause_parts)})" if self.pause_parts else ""
        return (
            f"switched {', '.join(self.tables)} at {said(self.position)}; writers were held for "
            f"{self.pause_seconds * 1000:.0f} ms{parts}, {self.attempts} attempt{'s' if self.attempts != 1 else ''}"
        )


class LeftBehind(BaseModel):
    """The events that the old tables hold after a swap; a rollback continues from there.

    :param settled: the old tables hold every event up to here
    :param above: higher positions whose events they hold; other events below F were not yet committed, and went to the
        new tables
    :param events: the number of all these events by type
    """

    settled: Place
    above: list[int]
    events: dict[str, int]


class Reconciliation(BaseModel):
    """The result of the step `reconcile`.

    :param appended_since: the number of events of the run's types since F, which live writers have projected into the
        new tables
    :param late: the number of events at or below F that writers have committed after the swap
    :param rows: the present row count of each table
    :param findings: problems that an operator has to solve
    """

    appended_since: int
    late: int = 0
    rows: dict[str, int]
    findings: list[str]

    def describe(self) -> str:
        """Lines for a log."""
        counts = ", ".join(f"{table} {rows:,}" for table, rows in self.rows.items())
        late = f" and {self.late:,} that were being appended during it" if self.late else ""
        return "\n".join([f"{self.appended_since:,} events since the switch{late}; rows now: {counts}", *self.findings])


@dataclass(frozen=True)
class ReplayResult:
    """The result of one call of :func:`replay`.

    :param events: the number of events handled in this call
    :param position: green holds every event up to here
    :param resumed_from: the position of the checkpoint at the beginning of the call
    """

    projector: str
    events: int
    position: Place
    seconds: float
    resumed_from: Place

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0

    def describe(self) -> str:
        """One line for a log."""
        return (
            f"{self.projector}: {self.events:,} events in {self.seconds:.1f} s ({self.rate:,.0f}/s), from "
            f"{said(self.resumed_from)} to {said(self.position)}"
        )
