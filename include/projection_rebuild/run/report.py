"""What a run did, as a record for people (Markdown) and programs (JSON); made from the ledger alone."""

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
    """One projector's replay in all attempts together."""

    projector: str
    events: int
    position: Place
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0


class CodeRecord(BaseModel):
    """Code that has replayed a projector: what its author calls it, and a hash of its source."""

    projector: str
    version: str
    source: str


class Said(BaseModel):
    """What was said about the run while it went on; see :class:`projection_rebuild.ledger.Note`."""

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
"""What happens between two states of a run."""


class Report(BaseModel):
    """One run, as far as it has come; parts that have not happened are None or empty.

    :param by: who started it; empty: its schedule, or nobody who is known
    :param moved: when it came to each of its states
    :param notes: what was said about it while it went on
    :param code: the code that made the rows
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
        """From a run's record and what else the ledger has of it."""
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
                ReplayRecord(projector=name, events=each.events, position=each.position, seconds=each.seconds)
                for name in run.plan.projectors
                if (each := checkpoints.get(name))
            ],
            code=[CodeRecord(projector=each.projector, version=each.version, source=each.source) for each in code],
            notes=[Said(name=each.name, value=each.value, by=each.by, at=each.at) for each in (notes or {}).values()],
            verification=record.verification,
            swap=record.swap,
            reconciliation=record.reconciliation,
            dropped=record.dropped,
        )

    @property
    def durations(self) -> dict[str, timedelta]:
        """How long each phase took that has come to its end, waiting for a worker included; see :data:`PHASES`."""
        return {
            name: self.moved[ended] - self.moved[began]
            for name, (began, ended) in PHASES.items()
            if began in self.moved and ended in self.moved
        }

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return self.model_dump(mode="json")

    def as_markdown(self) -> str:
        """The report as a person reads it."""
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
            lines += ["", "The tables get another structure:", "", *(f"- {each}" for each in self.plan.difference)]
        lines += self._replays() + self._tables() + self._differences()
        if self.swap:
            lines += ["", f"Switch: {self.swap.describe()}."]
        if self.reconciliation:
            lines += ["", f"After the switch: {self.reconciliation.describe()}."]
        if self.dropped:
            lines += ["", f"Dropped: {', '.join(self.dropped)}."]
        lines += self._said() + self._durations() + self._code()
        return "\n".join(lines)

    def _replays(self) -> list[str]:
        if not self.replays:
            return []
        # A rollback has nearly all events from the tables that it brings back: a rate would say nothing.
        rates = ["" if self.plan.rolls_back else f"{each.rate:,.0f}" for each in self.replays]
        rows = [
            f"| {each.projector} | {each.events:,} | {each.seconds:.1f} | {rate} |"
            for each, rate in zip(self.replays, rates, strict=True)
        ]
        return ["", "| projector | events | seconds | events/s |", "| --- | ---: | ---: | ---: |", *rows]

    def _tables(self) -> list[str]:
        if not self.verification:
            return []
        rows = [
            f"| {each.table} | {each.blue_rows:,} | {each.green_rows:,} | {each.identical:,} | {each.differing:,} | "
            f"{each.only_blue:,} | {each.only_green:,} |"
            for each in self.verification.tables
        ]
        head = "| table | rows before | rows after | identical | differ | only before | only after |"
        failures = [f"- **failed:** {each}" for each in self.verification.failures]
        new = [
            f"- {each.table}: new and not compared: {', '.join(each.not_compared)}"
            for each in self.verification.tables
            if each.not_compared
        ]
        aside = [f"- {name} has set {count:,} events aside" for name, count in self.verification.dead_letters.items()]
        return ["", head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows, *new, *aside, *failures]

    def _differences(self) -> list[str]:
        """Keys of some rows that are not the same, never their contents."""
        tables = self.verification.tables if self.verification else []
        words = {"differing": "differ", "only_blue": "only before", "only_green": "only after"}
        found = [
            f"- {each.table}, {words[what]}: {', '.join(f'`{key}`' for key in keys)}"
            for each in tables
            for what, keys in each.samples.items()
        ]
        return ["", "Some of the rows that are not the same, by their keys:", "", *found] if found else []

    def _said(self) -> list[str]:
        people = [each for each in self.notes if each.by]
        found = [f"- {each.name.replace('_', ' ')}, {each.by}, {each.at:%Y-%m-%d %H:%M:%S} UTC{_why(each)}" for each in people]
        ended = [f"Ended without its switch: {each.value['reason']}." for each in self.notes if each.name == "stood_down"]
        return (["", "What people decided:", "", *found] if found else []) + (["", *ended] if ended else [])

    def _durations(self) -> list[str]:
        said = [f"{name} {timedelta(seconds=round(took.total_seconds()))}" for name, took in self.durations.items()]
        return ["", f"Durations: {', '.join(said)}."] if said else []

    def _code(self) -> list[str]:
        said = [f"{each.projector} {each.version + ' ' if each.version else ''}({each.source})" for each in self.code]
        return ["", f"Code of the projectors: {', '.join(said)}."] if said else []


def _why(said: Said) -> str:
    reason = said.value.get("reason", "")
    return f": {reason}" if reason else ""
