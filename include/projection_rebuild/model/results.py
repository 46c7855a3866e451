"""What the steps of a run have found and done: plain data, kept in the ledger and shown in reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from projection_rebuild.model.positions import Place, said


class Sampled(BaseModel):
    """What a sample of one projector's aggregates says.

    :param position: the events up to here were refolded: that of its checkpoint
    :param aggregates: how many were refolded
    :param events: how many events they have
    :param rows: how many rows they make
    :param not_sampled: why there was no sample; empty: there was one
    :param remarks: what was left out, and what the comparison does not say
    :param findings: rows that are not as their events make them, a few of them, by their keys
    :param differing: the aggregates that these are of
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
    """Green against blue. Blue moves while it is read, and differences are what a rebuild is for: they only inform.

    :param drift_percent: how far green's count is from blue's, in percent of blue's
    :param samples: keys of rows that are not the same, a few of each kind, never their contents
    :param not_compared: columns that blue does not have; without its key, rows are only counted
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
    """What was found; ``failures`` decide.

    :param at: when it was found, in UTC; it tells one verification of a run from another
    :param seconds: how long it took
    :param dead_letters: how many events were set aside, by projector
    :param notes: what a person should know of the store, and what is no reason
    :param sample: aggregates refolded from raw rows and compared with green; runs of an earlier version have none
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
        aside = [f"{name} has set {count:,} events aside" for name, count in self.dead_letters.items()]
        told = [*(each.describe() for each in self.tables), *aside, *self.notes, *(each.describe() for each in self.sample)]
        return "\n".join([*told, *(f"FAILED: {each}" for each in self.failures)])


PARTS = {
    "lock": "the store's fence and the tables are taken, and the application's jobs come to their end",
    "drain": "what was appended last is projected",
    "count": "the newest events, and rows of others that would lose their parents, are counted",
    "rename": "the ledger is told, and the tables change their names",
    "after": "what cannot be part of that follows: foreign keys and their names, on MySQL and MariaDB",
    "release": "the transaction commits, or the locks are given up",
}
"""The parts of a pause, in their order."""


def by_parts(parts: Mapping[str, float]) -> str:
    """The parts of a pause in milliseconds, for a log."""
    return ", ".join(f"{name} {seconds * 1000:.0f}" for name, seconds in parts.items())


class SwapResult(BaseModel):
    """What the switch did.

    :param position: F, the head that green was drained to; later events were projected live. None: there were no events
    :param pause_seconds: for how long writers were held at most, in the attempt that succeeded
    :param attempts: how many attempts it took
    :param in_doubt: events that were appended while nothing held them back, because the fence's connection had died
    :param left_on_old: what was done to a live table between the last look and the switch, and is on the retired one
    :param pause_parts: the pause by its parts in seconds, see :data:`PARTS`; empty where it was not measured, as after a crash
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
    """What the tables hold that a switch has retired; a rollback goes on from there.

    :param settled: every event up to here
    :param above: and the events at these positions; others below F were still being appended, and went to the new tables
    :param events: how many events of each type that is in all
    """

    settled: Place
    above: list[int]
    events: dict[str, int]


class Reconciliation(BaseModel):
    """What was found after the switch.

    :param appended_since: events of the run's types since F; the live projectors have projected them into the new tables
    :param late: events at or below F that were committed after the switch
    :param rows: each table's rows now
    :param findings: what is not as it should be; a person has to look at it
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
    """What one call of :func:`replay` did.

    :param events: events handled in this call
    :param position: every event up to here is in green
    :param resumed_from: the checkpoint at which it began
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
