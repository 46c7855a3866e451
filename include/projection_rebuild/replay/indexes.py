"""Builds the indexes of a projector's green tables: after its replay, or before handlers look rows up by them."""

from __future__ import annotations

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.run.step import Step
from projection_rebuild.shadow.live_tables import refuse_at_once


def index(step: Step, projector: type[Projector], *, statistics: bool = True) -> None:
    """Builds the indexes that a projector's green tables still lack.

    :param statistics: whether to gather the tables' statistics as well
    :raises CloneError: a live table is gone or has been replaced
    """
    run = step.ledger.runs.get()
    plan = step.context.plan_of(run)
    tables = [step.context.table_set(table, plan) for table in projector.tables()]
    refuse_at_once(step, tables, run)
    for table in tables:
        for statement in step.dialect.shadow.index_green(step.connection, table):
            step.dialect.run(step.connection, statement)
        for statement in step.dialect.shadow.analyze(step.connection, table) if statistics else ():
            step.dialect.run(step.connection, statement)


def index_lookups(step: Step, projector: type[Projector]) -> None:
    """Builds the indexes if handlers look rows up by columns other than keys: without them, a lookup scans the table."""
    if any(kind.lookups for kind in projector.kinds()):
        index(step, projector, statistics=False)
