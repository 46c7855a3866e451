"""The record of runs: makes a report of what the ledger holds of a run, keeps it there, and finds the reports of earlier ones.

A kept report outlives what it was made from: checkpoints of dead runs are removed, and a run may be planned anew.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from projection_rebuild.authoring.fingerprint import source_hash
from projection_rebuild.errors import StepOrderError
from projection_rebuild.ledger import Run
from projection_rebuild.run.context import Context
from projection_rebuild.run.report import Report


def report(context: Context) -> Report:
    """What a run has done so far, given up or not.

    :raises StepOrderError: there is no such run
    """
    with context.dialect.connect() as connection:
        return made(context, connection, _run(context, connection))


def keep(context: Context) -> Report:
    """Keeps the report of a run as it is now.

    :raises StepOrderError: there is no such run
    """
    with context.dialect.connect() as connection:
        return keep_run(context, connection, _run(context, connection))


def keep_run(context: Context, connection: sa.Connection, run: Run) -> Report:
    """Keeps the report of any run of this ledger as it is now."""
    kept = made(context, connection, run)
    context.ledger.reports.keep(connection, run, kept.as_json(), kept.as_markdown())
    return kept


def history(context: Context, limit: int) -> list[Report]:
    """The reports of the spec's last runs, newest first; of a run that goes on, as it is now.

    Empty where nothing was ever rebuilt.
    """
    ledger = context.ledger
    with context.dialect.connect() as connection:
        if not ledger.exists(connection):
            return []
        rebuild = context.spec.rebuild
        kept = [Report.model_validate(each) for each in ledger.reports.latest(connection, rebuild, limit)]
        known = {(each.run_id, each.started_at): each for each in kept}
        for run in ledger.runs.latest(connection, rebuild, limit):
            before = known.get((run.run_id, run.started_at))
            if before is None or before.state != run.state:
                known[run.run_id, run.started_at] = made(context, connection, run)
    return sorted(known.values(), key=lambda each: each.started_at, reverse=True)[:limit]


def note_code(context: Context, projectors: Iterable[str]) -> None:
    """Records which code is about to work on the rows of these projectors.

    :raises StepOrderError: there is no such run, or it was given up
    :raises SpecError: the spec has been edited since it was planned
    """
    with context.dialect.connect() as connection:
        context.plan_of(context.ledger.runs.get(connection, context.run_id))
        for name in projectors:
            projector = context.projector(name)
            context.ledger.reports.add_code(
                connection, context.run_id, name, version=projector.version, source=source_hash(projector)
            )


def _run(context: Context, connection: sa.Connection) -> Run:
    run = context.ledger.runs.find(connection, context.run_id)
    if run is None:
        raise StepOrderError(f"the ledger has no run {context.run_id}")
    return run


def made(context: Context, connection: sa.Connection, run: Run) -> Report:
    """The report of any run of this ledger as it is now."""
    ledger = context.ledger
    return Report.of(
        run,
        ledger.checkpoints.of_projectors(connection, run.run_id),
        ledger.reports.code(connection, run.run_id),
        ledger.signals.all(connection, run.run_id),
    )
