"""Checks that green still matches its events while a verified run waits for its cutover, and right before it.

No worker changes green meanwhile. The sample compares it at the position of its checkpoints, however far the store has
gone on. The engine acts only on a difference that two samples show. Then it moves the run back to its state before
verification, so that no cutover can begin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from projection_rebuild.errors import Diverged
from projection_rebuild.ledger import Ledger, Run, RunState
from projection_rebuild.model.results import Sampled
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import open_step
from projection_rebuild.verification import sample, second_opinion

PROOF = "proof"
"""The key of the note that records the last look.

Its value has ``verification`` (the verification that the look concerns), ``at``, ``looks`` (their number) and
``sample``.
"""

BEFORE_SWITCH = 200
"""The most aggregates of a projector that the engine samples right before a cutover: those with the newest events."""


def utc_now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def look_again(context: Context, now: Callable[[], datetime] = utc_now) -> None:
    """Takes another sample of a verified run if the last one is at least as old as ``verify.sample_every``.

    :param now: returns the current time
    :raises Diverged: green no longer matches its events; the run has to be verified again
    """
    section = context.spec.verify
    if not section.sample or not section.sample_every:
        return
    with open_step(context, requires=RunState.VERIFIED) as step:
        run = step.run
        last = _last(context.ledger, step.connection, run)
    at = last.get("at") or run.record.verification_id
    if not run.state.is_verified or (at is not None and now() - datetime.fromisoformat(at) < section.sample_every):
        return
    _refuse_emptied(context, run)
    looks = int(last.get("looks", 0)) + 1
    samples = _sample_twice(context, run, section.sample, looks)
    value: dict[str, Any] = {"verification": run.record.verification_id, "at": now().isoformat(), "looks": looks}
    value["sample"] = [
        projector_sample.model_dump(mode="json", exclude={"findings", "differing"}) for projector_sample in samples
    ]
    with open_step(context) as step:
        step.ledger.signals.send(PROOF, value)
    for projector_sample in samples:
        context.log(f"looked again, {projector_sample.describe()}")


def look_before_switch(context: Context) -> None:
    """Checks that green still has rows, and samples a few aggregates with the newest events.

    It runs before the cutover makes writers wait.

    :raises Diverged: as for :func:`look_again`
    """
    most = min(context.spec.verify.sample, BEFORE_SWITCH)
    with open_step(context, requires=RunState.VERIFIED) as step:
        run = step.run
    if not run.state.is_verified:
        return
    _refuse_emptied(context, run)
    if most:
        _sample_twice(context, run, most, None)


def _refuse_emptied(context: Context, run: Run) -> None:
    """Refuses green tables that have been emptied; a cheap check that covers tables without a sample too.

    :raises Diverged: green had rows at its verification and has none now, while the live table has some
    """
    proven = run.record.verification
    if proven is None:
        # A rollback has no verification.
        return
    had_rows = {table.table for table in proven.tables if table.green_rows}
    tables = [table for table in context.table_sets(context.plan_of(run)) if table.blue in had_rows]
    dialect, before = context.dialect, _places(context)
    with dialect.connect() as connection:
        findings = [
            f"{table.blue}: green is empty and blue is not"
            for table in tables
            if not dialect.inspector.has_rows(connection, table.schema, table.green)
            and dialect.inspector.has_rows(connection, table.schema, table.blue)
        ]
    if findings and _places(context) == before:
        _fall_back(context, run, findings, proven.sample)


def _last(ledger: Ledger, connection: sa.Connection, run: Run) -> Mapping[str, Any]:
    """The note of the last look; empty if that look concerned an earlier verification."""
    note = ledger.over(connection, run.run_id).signals.all().get(PROOF)
    return note.value if note is not None and note.value.get("verification") == run.record.verification_id else {}


def _sample_twice(context: Context, run: Run, most: int, looks: int | None) -> Sequence[Sampled]:
    plan = context.plan_of(run)
    before = _places(context)
    samples = sample.take(context, plan, most, turn=looks)
    suspects = {
        projector_sample.projector: projector_sample.differing for projector_sample in samples if projector_sample.differing
    }
    if not suspects:
        return samples
    again = sample.take(context, plan, most, again=suspects)
    confirmed = [projector_sample for projector_sample in again if projector_sample.findings]
    if _places(context) != before:
        # Another worker of this run changes green, and takes its own samples.
        return samples
    if confirmed:
        _fall_back(context, run, [finding for projector_sample in confirmed for finding in projector_sample.findings], confirmed)
    return samples


def _places(context: Context) -> Mapping[str, Any]:
    with open_step(context) as step:
        return {name: checkpoint.position for name, checkpoint in step.ledger.checkpoints.of_projectors().items()}


def _fall_back(context: Context, run: Run, findings: Sequence[str], samples: Sequence[Sampled]) -> None:
    """Moves the run back to its state before verification.

    :param findings: what is wrong with green
    :param samples: the sample to report with the findings
    :raises Diverged: always, unless another worker or an operator has moved the run since this worker has read it
    """
    with open_step(context) as step:
        # If events have come or gone, the count explains the difference best.
        failures = second_opinion.count(step, context.plan_of(run)).failures
    failures += findings
    # With another time, so that an approval of the former verification does not count for this one.
    failed = run.verification.model_copy(update={"failures": failures, "sample": list(samples), "at": utc_now()})
    with open_step(context) as step, context.dialect.transaction(step.connection):
        current = step.ledger.runs.get()
        # Another worker has swapped or verified the run meanwhile: these findings do not concern it any more.
        unchanged = current.state is run.state and current.record.verification_id == run.record.verification_id
        if not (unchanged and step.ledger.runs.move_from(current, RunState.CLONED, verification=failed)):
            return
    raise Diverged(
        "green is no longer what its events make, blue is live and untouched:\n"
        + "\n".join(failures)
        + "\nGreen or its events have changed since the verification. Find out why; then clear verify_counts and what follows, "
        "or clone_tables and what follows, so that the engine recreates green"
    )
