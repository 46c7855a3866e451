"""One run in the ledger: its state, and the record of its steps' results."""

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
"""A moment that the ledger stores without an offset."""

Identities = dict[str, str | None]
"""The database's identity of each live table, by name; None: the database does not tell."""


class RunRecord(BaseModel):
    """The stored results of a run's steps, by their stored keys. A result that does not exist yet is None or empty.

    :param stored_options: the run's options as stored
    :param by: the operator who has started the run; empty: its schedule, or an unknown operator
    :param agreed: the parts of the spec on which the run relies; None: an earlier version began the run
    :param moved: the time at which the run reached each of its states
    :param live_tables: the identities of the live tables at the clone; None: an earlier version began the run
    :param replaced_tables: the identities of the live tables because of which the engine has refused a swap
    :param left_behind: the events that the old tables hold
    :param dropped: the old tables that the engine has dropped
    :param rolled_back_by: the id of the run that has taken back this run's swap
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
        """The run's options.

        The ledger validates them only when a step needs them, so that it can show runs of earlier versions, which
        allowed other options.
        """
        return RunOptions.of_record(self.stored_options)

    @property
    def reason(self) -> str:
        """The reason for the run, in the words of its operator."""
        return str(self.stored_options["reason"])

    @property
    def verification_id(self) -> str | None:
        """The time of the verification, which identifies it among those of the run; None: the run has none."""
        if self.verification is None:
            return None
        at: str | None = self.verification.model_dump(mode="json", include={"at"})["at"]
        return at


class RecordChanges(TypedDict, total=False):
    """The results that a step adds to the record of a run."""

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

    :param stored: the record as stored; it keeps keys that a later version has added
    """

    run_id: str
    rebuild: str
    state: RunState
    stored: Mapping[str, Any]
    started_at: datetime

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run.

        The ledger reads it separately from the record, since a step needs only the plans of other runs.
        """
        return Plan.model_validate(self.stored["plan"])

    @cached_property
    def record(self) -> RunRecord:
        """The stored results of the steps, without the plan."""
        return RunRecord.model_validate(self.stored)

    @property
    def verification(self) -> Verification:
        """The result of the last verification.

        :raises StepOrderError: the run has none, as in a rollback
        """
        if self.record.verification is None:
            raise StepOrderError(f"the run {self.run_id} is {self.state}, and was never verified")
        return self.record.verification

    @property
    def swap_result(self) -> SwapResult:
        """The result of the swap, or the announcement of a swap in progress.

        :raises StepOrderError: the run's cutover has not begun
        """
        if self.record.swap is None:
            raise StepOrderError(f"the run {self.run_id} is {self.state}, and its record knows of no switch")
        return self.record.swap

    @property
    def left_behind(self) -> LeftBehind:
        """The events that the old tables hold after the swap.

        :raises StepOrderError: the run's cutover has not begun
        """
        if self.record.left_behind is None:
            raise StepOrderError(f"the run {self.run_id} is {self.state}, and its record knows of no retired tables")
        return self.record.left_behind


def refuse_within_switch(run: Run) -> None:
    """Refuses a run that has stopped within its swap: green may hold events above its checkpoints until a retry.

    :raises StoppedAtCutover: the run has stopped within its swap
    """
    if run.state.in_doubt:
        raise StoppedAtCutover(f"the run {run.run_id} was stopped within its switch; retry atomic_swap before anything else")
