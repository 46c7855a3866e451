"""The plan of a run: which projectors, in which order, on which tables. Pure data."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, computed_field

from projection_rebuild.authoring.parts import Selection
from projection_rebuild.model.findings import Dependents, Finding
from projection_rebuild.model.positions import Place

UNSHOWN = "rows, locks, and what an earlier run has left"
"""The statements that a dry run leaves out, since they depend on the data at the time of the run."""


class Space(BaseModel):
    """Disk space of the read models, in bytes.

    :param needed: the present size of the run's tables with their indexes; their doubles need about as much again
    :param free: how much the database can still grow; None: the server does not tell
    """

    needed: int
    free: int | None

    def describe(self) -> str:
        """Both sizes as one line for a log."""
        free = "the server does not tell how much is free" if self.free is None else f"{_size(self.free)} are free"
        return f"about {_size(self.needed)} for the doubles of the tables, as much as these take now; {free}"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


class ReplayEstimate(BaseModel):
    """An estimate of one projector's replay.

    :param events: the number of events that it projects
    :param events_per_second: the rate of one worker in its last replay; None: the ledger has no earlier replay
    :param shards: the number of shards, each with its own worker
    """

    projector: str
    events: int
    events_per_second: float | None
    shards: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def seconds(self) -> float | None:
        """The estimated time with all shards in parallel; None: unknown."""
        return self.events / (self.events_per_second * self.shards) if self.events_per_second else None

    def describe(self) -> str:
        """One line for a log."""
        if self.seconds is None:
            return f"{self.projector}: {self.events:,} events; how long they take will be known after a first run"
        divided = f" in {self.shards} shards at once" if self.shards > 1 else ""
        return (
            f"{self.projector}: {self.events:,} events, about {_span(self.seconds)}{divided} by its last rate "
            f"({self.events_per_second:,.0f}/s{' each' if divided else ''})"
        )


def _span(seconds: float) -> str:
    return str(timedelta(seconds=max(1, round(seconds))))


class Plan(BaseModel):
    """The result of the step `plan`, small enough to store in the ledger.

    :param projectors: the chosen projectors, each after those that it depends on
    :param tables: their tables by live name, parents before the tables that refer to them
    :param events: about how many events the store holds
    :param head: the newest position at the time of the plan; None: the store was empty
    :param shards: the number of shards by projector; without an entry, a projector is not sharded
    :param findings: findings that inform an operator and do not refuse the run
    :param space: the disk space that the doubles need; None for a rollback, which needs no more space
    :param forms: the new structure of each table that gets one, in its dialect's own format
    :param views: the queries of the views to define again with the new structure, by name
    :param difference: the changes of the structure, in words
    :param forecasts: for a dry run, the estimate of each projector's replay
    :param carried: for a dry run, the dependent objects that the rebuild carries over
    :param sql: for a dry run, the settings of the session, and all statements that would define, rename or drop an
        object, without :data:`UNSHOWN`; a database's shell can execute them unchanged
    :param part: the part to rebuild, while the run copies all other rows from blue; None: all rows
    :param rolls_back: for a rollback, the run whose swap it takes back
    :param already: positions above the checkpoints whose events green already holds: in a rollback, and after an undone
        swap
    """

    rebuild: str
    run_id: str
    projectors: list[str]
    tables: list[str]
    schema_name: str | None
    events: int
    head: Place
    shards: dict[str, int] = {}
    findings: list[Finding] = []
    space: Space | None = None
    forms: dict[str, str] = {}
    views: dict[str, str] = {}
    difference: list[str] = []
    forecasts: list[ReplayEstimate] = []
    carried: list[Dependents] = []
    sql: list[str] = []
    dry_run: bool = False
    part: Selection | None = None
    rolls_back: str | None = None
    already: list[int] | None = None

    def describe(self) -> str:
        """The plan as lines for a log."""
        lines = [
            f"{self._what()}: {len(self.projectors)} projectors, {len(self.tables)} tables, about {self.events:,} events",
            "  projectors: " + " -> ".join(self.projectors),
            "  tables:     " + ", ".join(self.tables),
            *([f"  part:       {self.part.describe()}; all other rows are copied"] if self.part else []),
            *(["  shards:     " + ", ".join(f"{name} {count}" for name, count in self.shards.items())] if self.shards else []),
            *self._replay(),
            *([f"  space:      {self.space.describe()}"] if self.space else []),
            *(f"  note:       {finding}" for finding in self.findings),
        ]
        if self.forms:
            lines += ["  New structure:", *(f"    {change}" for change in self.difference or ["nothing differs"])]
        if self.carried:
            lines += ["  Dependents over:", *(f"    {dependents}" for dependents in self.carried)]
        if self.sql:
            lines += [f"  SQL, in this order, without {UNSHOWN}:", *map(_ended, self.sql)]
        if self.dry_run:
            lines.append("  Dry run: nothing has been touched.")
        return "\n".join(lines)

    def _replay(self) -> list[str]:
        """The estimates of the replays, and their estimated time together."""
        lines = [f"  replay:     {estimate.describe()}" for estimate in self.forecasts]
        known = [estimate.seconds for estimate in self.forecasts if estimate.seconds is not None]
        if lines and len(known) == len(lines):
            most = " at most, as only a part is replayed" if self.part else ""
            lines.append(f"  time:       about {_span(sum(known))}{most} if one follows the other; less with several workers")
        return lines

    def _what(self) -> str:
        return f"Rollback of the run {self.rolls_back}" if self.rolls_back else f"Rebuild {self.rebuild}"


def _ended(statement: str) -> str:
    """A statement with its semicolon, on a line of its own if the last line of the statement may be a comment."""
    comment = any(mark in statement.rpartition("\n")[2] for mark in ("--", "#"))
    return f"    {statement}\n    ;" if comment else f"    {statement};"
