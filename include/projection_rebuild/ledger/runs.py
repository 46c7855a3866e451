"""The runs: their states, and the records of their steps' results."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Unpack

import sqlalchemy as sa
from pydantic import BaseModel

from projection_rebuild.errors import FencedOut, RunGivenUp, StepOrderError, UnknownRun
from projection_rebuild.ledger.repository import Repository, as_json, as_moment, from_json, now
from projection_rebuild.ledger.run_record import RecordChanges, Run
from projection_rebuild.ledger.states import INTERRUPTED_AT_SWITCH, RunState


class Runs(Repository):
    """The runs by id."""

    def begin(self, rebuild: str, record: RecordChanges) -> None:
        """Records the run as planned, in place of an earlier record of its id."""
        schema = self._schema
        for table in (schema.runs, schema.notes, schema.code, schema.waits):
            self._connection.execute(table.delete().where(table.c.run_id == self._run_id))
        self._connection.execute(
            schema.runs.insert().values(
                run_id=self._run_id,
                rebuild=rebuild,
                state=RunState.PLANNED,
                record=as_json(_stored(record)),
                started_at=now(),
                updated_at=now(),
            )
        )

    def get(self, *, requires: RunState = RunState.PLANNED) -> Run:
        """The run, for one of its steps.

        :param requires: the state that the run must have reached
        :raises UnknownRun: the ledger has no such run
        :raises RunGivenUp: an operator has given it up, or another run has taken over its tables
        :raises StepOrderError: the run has not reached the state
        """
        run = self.find()
        if run is None:
            raise UnknownRun(f"the ledger has no run {self._run_id}; run the step `plan` first")
        if run.state is RunState.ABANDONED:
            raise RunGivenUp(
                f"the run {self._run_id} was given up, or another run has taken over its tables; clear its `plan` task to begin it anew"
            )
        if not run.state.has_reached(requires):
            raise StepOrderError(
                f"the run {self._run_id} is {run.state}, not yet {requires}; run the steps before this one first"
            )
        return run

    def find(self) -> Run | None:
        """The run in any state; None: the ledger does not have it."""
        runs = self._schema.runs
        row = self._connection.execute(sa.select(runs).where(runs.c.run_id == self._run_id)).one_or_none()
        return None if row is None else _run(row)

    def latest(self, rebuild: str, limit: int) -> list[Run]:
        """The last runs of a spec, newest first."""
        runs = self._schema.runs
        query = sa.select(runs).where(runs.c.rebuild == rebuild).order_by(runs.c.started_at.desc()).limit(limit)
        return [_run(row) for row in self._connection.execute(query)]

    def move(self, state: RunState, **changes: Unpack[RecordChanges]) -> None:
        """Moves the run to a state and adds results to its record.

        :raises StepOrderError: see :meth:`get`; or this state may not follow the run's state
        :raises FencedOut: another worker has moved the run since this method has read it
        """
        run = self.get()
        if not self.move_from(run, state, **changes):
            raise FencedOut(f"the run {self._run_id} is no longer {run.state}: another worker has moved it; this one has not")

    def move_unless_switching(self, state: RunState, **changes: Unpack[RecordChanges]) -> None:
        """Like :meth:`move`, for a worker that may be late: never moves a run within its swap, which only the swap may do.

        :raises StepOrderError: see :meth:`move`
        :raises FencedOut: the run is within its swap, or another worker has moved it since this method has read it
        """
        run = self.get()
        if run.state is RunState.SWITCHING or not self.move_from(run, state, **changes):
            raise FencedOut(
                f"the run {self._run_id} is no longer as this worker found it: another worker has moved it; this one has not"
            )

    def move_from(self, run: Run, state: RunState, **changes: Unpack[RecordChanges]) -> bool:
        """Moves a run, unless another worker has moved it since the caller has read it.

        :param run: the run as the caller has read it
        :returns: whether this call has moved the run
        :raises StepOrderError: this state may not follow the run's state
        """
        if not run.state.may_become(state):
            remedy = f"; {INTERRUPTED_AT_SWITCH[run.state]}" if run.state in INTERRUPTED_AT_SWITCH else ""
            raise StepOrderError(f"the run {run.run_id} is {run.state}, and no run may go from there to {state}{remedy}")
        runs = self._schema.runs
        record = {**run.stored, **_stored(changes), "moved": _moved(run, state)}
        unmoved = (runs.c.run_id == run.run_id) & (runs.c.state == run.state)
        moved = runs.update().where(unmoved).values(state=state, record=as_json(record), updated_at=now())
        return self._connection.execute(moved).rowcount > 0

    def amend(self, **changes: Unpack[RecordChanges]) -> None:
        """Adds results to the record of the run, if the ledger has it, and does not change its state."""
        run = self.find()
        if run is not None:
            runs = self._schema.runs
            record = {**run.stored, **_stored(changes)}
            self._connection.execute(runs.update().where(runs.c.run_id == self._run_id).values(record=as_json(record)))

    def give_up(self) -> None:
        """Marks the run as given up, unless its cutover has begun or the ledger does not have it. Its record stays."""
        runs = self._schema.runs
        states = [state for state in RunState if state.may_become(RunState.ABANDONED)]
        alive = (runs.c.run_id == self._run_id) & runs.c.state.in_(states)
        self._connection.execute(runs.update().where(alive).values(state=RunState.ABANDONED, updated_at=now()))

    def last_seen(self) -> datetime | None:
        """The time of the run's last write; None: the ledger does not have the run."""
        written = [
            self._connection.execute(sa.select(sa.func.max(table.c.updated_at)).where(table.c.run_id == self._run_id)).scalar()
            for table in (self._schema.runs, self._schema.checkpoints)
        ]
        return max((as_moment(text) for text in written if text), default=None)


def _run(row: sa.Row[Any]) -> Run:
    return Run(row.run_id, row.rebuild, RunState(row.state), from_json(row.record), as_moment(row.started_at))


def _stored(changes: RecordChanges) -> dict[str, Any]:
    return {key: value.model_dump(mode="json") if isinstance(value, BaseModel) else value for key, value in changes.items()}


def _moved(run: Run, state: RunState) -> dict[str, str]:
    """The times at which the run reached its states, without those of states after the new one."""
    before: Mapping[str, str] = run.stored.get("moved", {})
    kept = {name: at for name, at in before.items() if not _is_later(RunState(name), state)}
    if _is_later(state, run.state) or state not in kept:
        kept[str(state)] = now()
    return kept


def _is_later(state: RunState, other: RunState) -> bool:
    return state is not other and state.has_reached(other)
