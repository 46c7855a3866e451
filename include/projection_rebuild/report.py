"""What a run did, as a record for people (Markdown) and programs (JSON); made from the ledger alone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from include.projection_rebuild.ledger import Checkpoint, Run
from include.projection_rebuild.plan import Plan
from include.projection_rebuild.reconcile import Reconciliation
from include.projection_rebuild.swap import SwapResult
from include.projection_rebuild.verify import Verification


class ReplayRecord(BaseModel):
    """One projector's replay in all attempts together."""

    projector: str
    events: int
    position: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0


class Report(BaseModel):
    """One run, as far as it has come; parts that have not happened are None."""

    rebuild: str
    run_id: str
    state: str
    started_at: datetime
    reason: str
    plan: Plan
    replays: list[ReplayRecord]
    verification: Verification | None
    swap: SwapResult | None
    reconciliation: Reconciliation | None
    dropped: list[str]

    @classmethod
    def of(cls, run: Run, checkpoints: dict[str, Checkpoint]) -> Report:
        """From a run's record and its checkpoints."""
        record = run.record
        plan = Plan.model_validate(record["plan"])
        return cls(
            rebuild=run.rebuild,
            run_id=run.run_id,
            state=run.state,
            started_at=run.started_at,
            reason=record["options"]["reason"],
            plan=plan,
            replays=[
                ReplayRecord(projector=name, events=each.events, position=each.position, seconds=each.seconds)
                for name in plan.projectors
                if (each := checkpoints.get(name))
            ],
            verification=record.get("verification"),
            swap=record.get("swap"),
            reconciliation=record.get("reconciliation"),
            dropped=record.get("dropped", []),
        )

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return self.model_dump(mode="json")

    def as_markdown(self) -> str:
        """The report as a person reads it."""
        lines = [
            f"# Rebuild of {self.rebuild}: {self.state}",
            "",
            f"Run `{self.run_id}`, started {self.started_at:%Y-%m-%d %H:%M:%S} UTC.",
        ]
        if self.reason:
            lines += ["", f"Why: {self.reason}"]
        lines += self._replays() + self._tables()
        if self.swap:
            lines += ["", f"Switch: {self.swap.describe()}."]
        if self.reconciliation:
            lines += ["", f"After the switch: {self.reconciliation.describe()}."]
        if self.dropped:
            lines += ["", f"Dropped: {', '.join(self.dropped)}."]
        return "\n".join(lines)

    def _replays(self) -> list[str]:
        if not self.replays:
            return []
        rows = [f"| {each.projector} | {each.events:,} | {each.seconds:.1f} | {each.rate:,.0f} |" for each in self.replays]
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
        return ["", head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows, *failures]
