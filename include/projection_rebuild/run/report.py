"""The report of a run, for people (Markdown) and programs (JSON). Its data comes from the ledger alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel

from projection_rebuild.ledger import Checkpoint, Code, Note, Run, RunState
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.positions import Place
from projection_rebuild.model.results import Reconciliation, SwapResult, Verification


class ReplayRecord(BaseModel):
    """The replay of one projector, over all its attempts.

    :param seconds: how long the attempts took; with shards, the slowest shard
    """

    projector: str
    events: int
    position: Place
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0


class CodeRecord(BaseModel):
    """Code that has replayed a projector.

    :param version: the version that its author gave it; empty: none
    :param source: a hash of its source
    """

    projector: str
    version: str
    source: str


class Said(BaseModel):
    """A note about the run, such as an operator's signal; see :class:`projection_rebuild.ledger.Note`."""

    name: str
    value: dict[str, Any]
    by: str
    at: datetime


PHASES = {
    "cloning": (RunState.PLANNED, RunState.CLONED),
    "replay and verification": (RunState.CLONED, RunState.VERIFIED),
    "waiting and switch": (RunState.VERIFIED, RunState.SWITCHED),
    "reconciliation": (RunState.SWITCHED, RunState.RECONCILED),
    "retention and drop": (RunState.RECONCILED, RunState.FINISHED),
}
"""The phases of a run: each lies between the times at which the run came to two states."""


class Report(BaseModel):
    """One run, as far as it has come. Parts that have not happened yet are None or empty.

    :param by: the person who started it; empty: its schedule, or an unknown person
    :param moved: when it came to each of its states
    :param replays: in the order of the plan
    :param code: the code that wrote the rows
    :param notes: the notes about it, such as signals of operators
    :param dropped: the names of the old tables that it dropped
    """

    rebuild: str
    run_id: str
    state: str
    started_at: datetime
    reason: str
    by: str = ""
    moved: dict[str, datetime] = {}
    plan: Plan
    replays: list[ReplayRecord]
    code: list[CodeRecord] = []
    notes: list[Said] = []
    verification: Verification | None
    swap: SwapResult | None
    reconciliation: Reconciliation | None
    dropped: list[str]

    @classmethod
    def of(
        cls, run: Run, checkpoints: Mapping[str, Checkpoint], code: Sequence[Code] = (), notes: Mapping[str, Note] | None = None
    ) -> Report:
        """Builds the report from the run's record and the other data of the ledger.

        :param checkpoints: the checkpoints of the run, by projector
        :param code: the code that replayed its projectors
        :param notes: the notes of the run, by name
        """
        record = run.record
        return cls(
            rebuild=run.rebuild,
            run_id=run.run_id,
            state=run.state,
            started_at=run.started_at,
            reason=record.reason,
            by=record.by,
            moved={state.value: at for state, at in record.moved.items()},
            plan=run.plan,
            replays=[
                ReplayRecord(projector=name, events=checkpoint.events, position=checkpoint.position, seconds=checkpoint.seconds)
                for name in run.plan.projectors
                if (checkpoint := checkpoints.get(name))
            ],
            code=[CodeRecord(projector=entry.projector, version=entry.version, source=entry.source) for entry in code],
            notes=[Said(name=note.name, value=note.value, by=note.by, at=note.at) for note in (notes or {}).values()],
            verification=record.verification,
            swap=record.swap,
            reconciliation=record.reconciliation,
            dropped=record.dropped,
        )

    @property
    def durations(self) -> dict[str, timedelta]:
        """How long each finished phase took, including the wait for a worker; see :data:`PHASES`."""
        return {
            name: self.moved[ended] - self.moved[began]
            for name, (began, ended) in PHASES.items()
            if began in self.moved and ended in self.moved
        }

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return self.model_dump(mode="json")

    def as_markdown(self) -> str:
        """The report as Markdown, for people."""
        by = f" by {self.by}" if self.by else ""
        what = "Rollback" if self.plan.rolls_back else "Rebuild"
        lines = [
            f"# {what} of {self.rebuild}: {self.state}",
            "",
            f"Run `{self.run_id}`, started {self.started_at:%Y-%m-%d %H:%M:%S} UTC{by}.",
        ]
        if self.plan.rolls_back:
            lines += ["", f"Takes the switch of `{self.plan.rolls_back}` back."]
        if self.reason:
            lines += ["", f"Why: {self.reason}"]
        if self.plan.part:
            lines += ["", f"Only a part: {self.plan.part.describe()}; all other rows were copied."]
        if self.plan.difference:
            lines += ["", "The tables get another structure:", "", *(f"- {line}" for line in self.plan.difference)]
        lines += self._replays() + self._tables() + self._differences()
        if self.swap:
            lines += ["", f"Switch: {self.swap.describe()}."]
        if self.reconciliation:
            lines += ["", f"After the switch: {self.reconciliation.describe()}."]
        if self.dropped:
            lines += ["", f"Dropped: {', '.join(self.dropped)}."]
        lines += self._signals() + self._durations() + self._code()
        return "\n".join(lines)

    def _replays(self) -> list[str]:
        if not self.replays:
            return []
        # The old tables of a rollback already hold nearly all events, so a rate would mean nothing.
        rates = ["" if self.plan.rolls_back else f"{replay.rate:,.0f}" for replay in self.replays]
        rows = [
            f"| {replay.projector} | {replay.events:,} | {replay.seconds:.1f} | {rate} |"
            for replay, rate in zip(self.replays, rates, strict=True)
        ]
        return ["", "| projector | events | seconds | events/s |", "| --- | ---: | ---: | ---: |", *rows]

    def _tables(self) -> list[str]:
        if not self.verification:
            return []
        rows = [
            f"| {table.table} | {table.blue_rows:,} | {table.green_rows:,} | {table.identical:,} | {table.differing:,} | "
            f"{table.only_blue:,} | {table.only_green:,} |"
            for table in self.verification.tables
        ]
        head = "| table | rows before | rows after | identical | differ | only before | only after |"
        failures = [f"- **failed:** {failure}" for failure in self.verification.failures]
        new = [
            f"- {table.table}: new and not compared: {', '.join(table.not_compared)}"
            for table in self.verification.tables
            if table.not_compared
        ]
        dead_letters = [f"- {name} has set {count:,} events aside" for name, count in self.verification.dead_letters.items()]
        return ["", head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows, *new, *dead_letters, *failures]

    def _differences(self) -> list[str]:
        """The keys of some rows that differ, never their contents."""
        tables = self.verification.tables if self.verification else []
        words = {"differing": "differ", "only_blue": "only before", "only_green": "only after"}
        lines = [
            f"- {table.table}, {words[what]}: {', '.join(f'`{key}`' for key in keys)}"
            for table in tables
            for what, keys in table.samples.items()
        ]
        return ["", "Some of the rows that are not the same, by their keys:", "", *lines] if lines else []

    def _signals(self) -> list[str]:
        by_people = [note for note in self.notes if note.by]
        lines = [f"- {note.name.replace('_', ' ')}, {note.by}, {note.at:%Y-%m-%d %H:%M:%S} UTC{_why(note)}" for note in by_people]
        ended = [f"Ended without its switch: {note.value['reason']}." for note in self.notes if note.name == "stood_down"]
        return (["", "What people decided:", "", *lines] if lines else []) + (["", *ended] if ended else [])

    def _durations(self) -> list[str]:
        phases = [f"{name} {timedelta(seconds=round(took.total_seconds()))}" for name, took in self.durations.items()]
        return ["", f"Durations: {', '.join(phases)}."] if phases else []

    def _code(self) -> list[str]:
        entries = [f"{entry.projector} {entry.version + ' ' if entry.version else ''}({entry.source})" for entry in self.code]
        return ["", f"Code of the projectors: {', '.join(entries)}."] if entries else []


def _why(note: Said) -> str:
    reason = note.value.get("reason", "")
    return f": {reason}" if reason else ""
