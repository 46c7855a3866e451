"""What a run is going to do: which projectors, in which order, on which tables. Pure: reads and writes nothing."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, computed_field

from projection_rebuild.authoring.parts import Selection
from projection_rebuild.model.findings import Dependents, Finding
from projection_rebuild.model.positions import Place

UNSHOWN = "rows, locks, and what an earlier run has left"
"""What the SQL of a dry run leaves out: it hangs on what is found when it is done."""


class Space(BaseModel):
    """Room on the disk of the read models, in bytes.

    :param needed: what the tables of the run take now, indexes included; their doubles take about as much beside them
    :param free: what the database can still grow by; None where the server does not tell
    """

    needed: int
    free: int | None

    def describe(self) -> str:
        """Both, for a person."""
        free = "the server does not tell how much is free" if self.free is None else f"{_size(self.free)} are free"
        return f"about {_size(self.needed)} for the doubles of the tables, as much as these take now; {free}"


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


class ReplayEstimate(BaseModel):
    """What to expect of one projector's replay.

    :param events: those that it handles
    :param events_per_second: of one worker in its last replay; None: there is no record of one
    :param shards: into how many shards it is divided, each with a worker of its own
    """

    projector: str
    events: int
    events_per_second: float | None
    shards: int = 1

    @computed_field  # type: ignore[prop-decorator]
    @property
    def seconds(self) -> float | None:
        """How long it will take, its shards beside each other; None: nobody knows yet."""
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
    """The answer of the step `plan`, small enough to be kept in the ledger.

    :param projectors: the chosen ones, each after those that it depends on
    :param tables: their tables by live name, parents before the tables that refer to them
    :param events: about how many events the store holds
    :param head: the newest position when the plan was made; None: there were no events
    :param shards: into how many shards a projector is divided; those that are not have no entry
    :param findings: what an operator should know; none of it stops the run
    :param space: what the doubles need on the disk; None for a rollback, which needs nothing more
    :param forms: the structure of each table that gets another one, as its dialect keeps it
    :param views: the views that are defined anew with it, by name
    :param difference: what changes in the structure, in words
    :param forecasts: for a dry run, what to expect of each projector's replay
    :param carried: for a dry run, what hangs on the tables and will be as it was
    :param sql: for a dry run, the settings of the session, and every statement that would define, rename or drop something, but for
        what :data:`UNSHOWN` says; a database's shell can execute them as they stand
    :param part: the part that is rebuilt, the rest being copied from blue; None: everything
    :param rolls_back: for a rollback, the run whose switch is taken back
    :param already: positions above the checkpoints whose events green holds all the same: in a rollback, and after an undone switch
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
        """The plan as a person reads it in a log."""
        lines = [
            f"{self._what()}: {len(self.projectors)} projectors, {len(self.tables)} tables, about {self.events:,} events",
            "  projectors: " + " -> ".join(self.projectors),
            "  tables:     " + ", ".join(self.tables),
            *([f"  part:       {self.part.describe()}; all other rows are copied"] if self.part else []),
            *(["  shards:     " + ", ".join(f"{name} {count}" for name, count in self.shards.items())] if self.shards else []),
            *self._replay(),
            *([f"  space:      {self.space.describe()}"] if self.space else []),
            *(f"  note:       {each}" for each in self.findings),
        ]
        if self.forms:
            lines += ["  New structure:", *(f"    {each}" for each in self.difference or ["nothing differs"])]
        if self.carried:
            lines += ["  Dependents over:", *(f"    {each}" for each in self.carried)]
        if self.sql:
            lines += [f"  SQL, in this order, without {UNSHOWN}:", *map(_ended, self.sql)]
        if self.dry_run:
            lines.append("  Dry run: nothing has been touched.")
        return "\n".join(lines)

    def _replay(self) -> list[str]:
        """What there is to replay, and how long it will take."""
        lines = [f"  replay:     {each.describe()}" for each in self.forecasts]
        known = [each.seconds for each in self.forecasts if each.seconds is not None]
        if lines and len(known) == len(lines):
            most = " at most, as only a part is replayed" if self.part else ""
            lines.append(f"  time:       about {_span(sum(known))}{most} if one follows the other; less with several workers")
        return lines

    def _what(self) -> str:
        return f"Rollback of the run {self.rolls_back}" if self.rolls_back else f"Rebuild {self.rebuild}"


def _ended(statement: str) -> str:
    """A statement with its end, which may not come to stand in a comment."""
    comment = any(mark in statement.rpartition("\n")[2] for mark in ("--", "#"))
    return f"    {statement}\n    ;" if comment else f"    {statement};"
