"""One run as the ledger has it: its state, and the record of what its steps have found. A record is read once for each time the run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, TypedDict

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from projection_rebuild.errors import StepOrderError, StoppedAtCutover
from projection_rebuild.ledger.states import RunState
from projection_rebuild.model.plan import Plan
from projection_rebuild.model.results import LeftBehind, Reconciliation, SwapResult, Verification
from projection_rebuild.spec.options import RunOptions


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""A moment that is stored without an offset."""

Identities = dict[str, str | None]
"""The identity of each live table by its name; None: the database does not tell."""


class RunRecord(BaseModel):
    """What the steps of a run have stored, by the keys under which it is stored. What has not happened yet is None or empty.

    :param stored_options: the run's choices as they were stored
    :param by: who started the run; empty: its schedule, or nobody who is known
    :param agreed: what the run relies on in the spec; None: an earlier version began it
    :param moved: when the run came to each of its states
    :param live_tables: the identities when green was made; None: an earlier version began the run
    :param replaced_tables: the live tables for whose sake a switch was refused
    :param dropped: the old tables that are gone
    :param rolled_back_by: the run that has taken this one's switch back
    """

    model_config = ConfigDict(frozen=True)

    stored_options: dict[str, Any] = Field(alias="options")
    by: str = ""
    agreed: dict[str, Any] | None = None
    moved: dict[RunState, Moment] = {}
    live_tables: Identities | None = None
    replaced_tables: Identities = {}
    verification: Verification | None = None
    swap: SwapResult | None = None
    left_behind: LeftBehind | None = None
    reconciliation: Reconciliation | None = None
    dropped: list[str] = []
    rolled_back_by: str | None = None

    @cached_property
    def options(self) -> RunOptions:
        """The run's choices. They are read when a step needs them: an earlier version allowed others, and its runs are still to be shown."""
        return RunOptions.of_record(self.stored_options)

    @property
    def reason(self) -> str:
        """Why the run was started, in the words of who started it."""
        return str(self.stored_options["reason"])

    @property
    def verification_id(self) -> str | None:
        """Tells one verification of the run from another: the moment when it was made; None: there was none."""
        if self.verification is None:
            return None
        at: str | None = self.verification.model_dump(mode="json", include={"at"})["at"]
        return at


class RecordChanges(TypedDict, total=False):
    """What a step adds to the record of a run."""

    options: RunOptions
    plan: Plan
    by: str
    agreed: Mapping[str, Any]
    live_tables: Mapping[str, str | None]
    replaced_tables: Mapping[str, str | None]
    verification: Verification
    swap: SwapResult
    left_behind: LeftBehind
    reconciliation: Reconciliation
    dropped: list[str]
    rolled_back_by: str


@dataclass(frozen=True)
class Run:
    """One rebuild in the ledger.

    :param stored: the record as it is stored; a later version may have added keys, which stay
    """

    run_id: str
    rebuild: str
    state: RunState
    stored: Mapping[str, Any]
    started_at: datetime

    @cached_property
    def plan(self) -> Plan:
        """What the run rebuilds. It is read apart from the record: a step needs the plans of other runs and no more of them."""
        return Plan.model_validate(self.stored["plan"])

    @cached_property
    def record(self) -> RunRecord:
        """What the steps have stored beside the plan."""
        return RunRecord.model_validate(self.stored)

    @property
    def verification(self) -> Verification:
        """What the last verification has found.

        :raises StepOrderError: there was none, as in a rollback
        """
        if self.record.verification is None:
            raise StepOrderError(f"the run {self.run_id} is {self.state}, and was never verified")
        return self.record.verification

    @property
    def swap_result(self) -> SwapResult:
        """What the switch did, or is about to do.

        :raises StepOrderError: the run has not come to its switch
        """
        if self.record.swap is None:
            raise StepOrderError(f"the run {self.run_id} is {self.state}, and its record knows of no switch")
        return self.record.swap

    @property
    def left_behind(self) -> LeftBehind:
        """What the tables hold that the switch has retired, or is about to.

        :raises StepOrderError: the run has not come to its switch
        """
        if self.record.left_behind is None:
            raise StepOrderError(f"the run {self.run_id} is {self.state}, and its record knows of no retired tables")
        return self.record.left_behind


def refuse_within_switch(run: Run) -> None:
    """Green holds events above its checkpoints until the switch has found on which side it is.

    :raises StepOrderError: it has not
    """
    if run.state.in_doubt:
        raise StoppedAtCutover(f"the run {run.run_id} was stopped within its switch; retry atomic_swap before anything else")
