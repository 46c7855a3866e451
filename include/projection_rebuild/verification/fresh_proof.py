"""Whether what verification has proven still holds: looked at again while a run waits for its switch, and right before it.

Green stands still meanwhile, and is compared at the position of its checkpoints, however far the store has gone on. A difference has to be
seen twice. Then the run is as before its verification, so that nobody can switch it.
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
from projection_rebuild.verification import sample, second_opinion

PROOF = "proof"
"""The note of the last look: ``verification`` (which one it was about), ``at``, ``looks`` (how many there were) and ``sample``."""

BEFORE_SWITCH = 200
"""Aggregates of a projector that are looked at right before a switch, at most: those touched last."""


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def look_again(context: Context, now: Callable[[], datetime] = utc_now) -> None:
    """Takes another sample of a verified run, if the last one is as old as ``verify.sample_every``, or nothing is known of one.

    :raises Diverged: green is no longer what the events make; the run has to be verified again
    """
    section = context.spec.verify
    if not section.sample or not section.sample_every:
        return
    with context.dialect.connect() as connection:
        run = context.ledger.runs.get(connection, context.run_id, requires=RunState.VERIFIED)
        known = _last(context.ledger, connection, run)
    at = known.get("at") or run.record.verification_id
    if not run.state.is_verified or (at is not None and now() - datetime.fromisoformat(at) < section.sample_every):
        return
    _refuse_emptied(context, run)
    looks = int(known.get("looks", 0)) + 1
    found = _held_against(context, run, section.sample, looks)
    value: dict[str, Any] = {"verification": run.record.verification_id, "at": now().isoformat(), "looks": looks}
    value["sample"] = [each.model_dump(mode="json", exclude={"findings", "differing"}) for each in found]
    with context.dialect.connect() as connection:
        context.ledger.signals.send(connection, context.run_id, PROOF, value)
    for each in found:
        context.log(f"looked again, {each.describe()}")


def look_before_switch(context: Context) -> None:
    """Looks whether green is there, and at the aggregates that were touched last, a few of them, while nobody is held.

    :raises Diverged: as for :func:`look_again`
    """
    most = min(context.spec.verify.sample, BEFORE_SWITCH)
    with context.dialect.connect() as connection:
        run = context.ledger.runs.get(connection, context.run_id, requires=RunState.VERIFIED)
    if not run.state.is_verified:
        return
    _refuse_emptied(context, run)
    if most:
        _held_against(context, run, most, None)


def _refuse_emptied(context: Context, run: Run) -> None:
    """Looks at tables of which no aggregate can be sampled, too, for as little as it costs.

    :raises Diverged: green had rows when it was verified and has none, while the live table has some
    """
    proven = run.record.verification
    if proven is None:
        # As in a rollback.
        return
    had_rows = {each.table for each in proven.tables if each.green_rows}
    tables = [each for each in context.table_sets(context.plan_of(run)) if each.blue in had_rows]
    dialect, before = context.dialect, _places(context)
    with dialect.connect() as connection:
        found = [
            f"{each.blue}: green is empty and blue is not"
            for each in tables
            if not dialect.has_rows(connection, each.schema, each.green) and dialect.has_rows(connection, each.schema, each.blue)
        ]
    if found and _places(context) == before:
        _fall_back(context, run, found, proven.sample)


def _last(ledger: Ledger, connection: sa.Connection, run: Run) -> Mapping[str, Any]:
    """What is known of the last look; nothing, if that was about an earlier verification."""
    note = ledger.signals.all(connection, run.run_id).get(PROOF)
    return note.value if note is not None and note.value.get("verification") == run.record.verification_id else {}


def _held_against(context: Context, run: Run, most: int, looks: int | None) -> Sequence[Sampled]:
    plan = context.plan_of(run)
    before = _places(context)
    found = sample.take(context, plan, most, turn=looks)
    suspects = {each.projector: each.differing for each in found if each.differing}
    if not suspects:
        return found
    again = sample.take(context, plan, most, again=suspects)
    stays = [each for each in again if each.findings]
    if _places(context) != before:
        # Another worker of this run is at green, and looks by itself.
        return found
    if stays:
        _fall_back(context, run, [finding for each in stays for finding in each.findings], stays)
    return found


def _places(context: Context) -> Mapping[str, Any]:
    with context.dialect.connect() as connection:
        return {
            name: each.position for name, each in context.ledger.checkpoints.of_projectors(connection, context.run_id).items()
        }


def _fall_back(context: Context, run: Run, findings: Sequence[str], found: Sequence[Sampled]) -> None:
    """The run is as before its verification.

    :param findings: what is wrong with green
    :param found: the sample that is reported with it
    :raises Diverged: always, unless somebody has moved the run since it was read
    """
    with context.dialect.connect() as connection:
        # Where events have come or gone, that says it best.
        failures = second_opinion.count(context, connection, context.plan_of(run)).failures
    failures += findings
    # At another moment, so that no approval of the former one counts.
    now = run.verification.model_copy(update={"failures": failures, "sample": list(found), "at": utc_now()})
    with context.dialect.connect() as connection, context.dialect.transaction(connection):
        current = context.ledger.runs.get(connection, context.run_id)
        # Switched or verified anew meanwhile: what was looked at is not what the run is about.
        stands = current.state is run.state and current.record.verification_id == run.record.verification_id
        if not (stands and context.ledger.runs.move_from(connection, current, RunState.CLONED, verification=now)):
            return
    raise Diverged(
        "green is no longer what its events make, blue is live and untouched:\n"
        + "\n".join(failures)
        + "\nSomebody has changed green or events since it was verified. Find out what; then clear verify_counts and what follows, "
        "or clone_tables and what follows, so that green is made anew"
    )
