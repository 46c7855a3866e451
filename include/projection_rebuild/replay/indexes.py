"""Indexes of a projector's green tables: at the end of its replay, or before rows are looked up by them."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.run.context import Context
from projection_rebuild.shadow.live_tables import refuse_at_once


def index(context: Context, connection: sa.Connection, projector: type[Projector], *, statistics: bool = True) -> None:
    """Builds the indexes that a projector's green tables still lack, and their statistics."""
    run = context.ledger.runs.get(connection, context.run_id)
    plan = context.plan_of(run)
    tables = [context.table_set(table, plan) for table in projector.tables()]
    refuse_at_once(context, connection, tables, run)
    for table in tables:
        for statement in context.dialect.index_green(connection, table):
            context.dialect.run(connection, statement)
        for statement in context.dialect.analyze(connection, table) if statistics else ():
            context.dialect.run(connection, statement)


def index_lookups(context: Context, connection: sa.Connection, projector: type[Projector]) -> None:
    """The same before rows are looked up in green by other columns than their keys: each time would read the whole table."""
    if any(kind.lookups for kind in projector.kinds()):
        index(context, connection, projector, statistics=False)
