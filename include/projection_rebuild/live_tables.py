"""Whether the live tables are still those that green was made like: somebody may put another table in a live one's place.

A dropped or renamed table whose name is given to a new one looks the same to whoever goes by names. So the run records each live
table's identity when green is made, and the switch compares it, the last time while the tables are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from include.projection_rebuild.context import Context
from include.projection_rebuild.errors import CloneError
from include.projection_rebuild.findings import Finding
from include.projection_rebuild.ledger import Run
from include.projection_rebuild.names import TableSet

LIVE, REPLACED = "live_tables", "replaced_tables"
"""Keys in a run's record: the identities when green was made (runs of an earlier version have none), and what a switch was refused for."""


def identities(context: Context, connection: sa.Connection, tables: Sequence[TableSet]) -> dict[str, str | None]:
    """The identity of each live table now, by name; None: the database does not tell us."""
    found: dict[str, str | None] = context.dialect.identities(connection, context.schema, [table.blue for table in tables])
    return found


def refuse_replaced(context: Context, connection: sa.Connection, tables: Sequence[TableSet], run: Run) -> None:
    """Refuses to switch where a live table is not the one that green was made like.

    :raises CloneError: names the tables, and what to do
    """
    now = identities(context, connection, tables)
    known = run.record.get(LIVE, {})
    replaced = {name: each for name, each in now.items() if known.get(name) is not None and each != known[name]}
    refuse_gone(context, connection, sorted(name for name, each in replaced.items() if each is None))
    # Where only the privilege to see it has gone, that says nothing.
    replaced = {name: each for name, each in replaced.items() if each is not None}
    if replaced:
        context.ledger.note(connection, context.run_id, **{REPLACED: replaced})
        raise CloneError(_another(context, run, sorted(replaced)))


def refuse_gone(context: Context, connection: sa.Connection, names: Sequence[str]) -> None:
    """Refuses to go on without a live table.

    :raises CloneError: names them, and what to do
    """
    gone = [name for name in names if not context.dialect.table_exists(connection, context.schema, name)]
    if gone:
        raise CloneError(
            f"the live table {', '.join(gone)} is gone: somebody has renamed or dropped it since green was made like it. Nothing has been "
            "switched, green stays. Put it back, then retry"
        )


def refuse_at_once(context: Context, connection: sa.Connection, tables: Sequence[TableSet], run: Run) -> None:
    """The same before green is given what blue has: of another table it could not be completed.

    Where a table gets another identity by some statements and is the same one all the same, this is left to the switch.

    :raises CloneError: see :func:`refuse_replaced`
    """
    refuse_gone(context, connection, [table.blue for table in tables])
    if context.dialect.identity_lost_by is None:
        refuse_replaced(context, connection, tables, run)


def _another(context: Context, run: Run, names: list[str]) -> str:
    if Context.recorded_plan(run).rolls_back:
        remedy = "or trigger the rollback anew"
    elif context.dialect.identity_lost_by is None:
        remedy = "or clear `clone_tables` and what follows it, so that green is made like the table that is there now"
    else:
        remedy = (
            f"or, if it is the right one ({context.dialect.identity_lost_by} makes another one of a table, too), clear `verify_counts` and what "
            "follows it: green is then compared with this one, and may replace it"
        )
    return (
        f"the live table {', '.join(names)} is another one than when green was made like it: somebody has made it anew, or put another table "
        f"in its place. Nothing has been switched, green stays. Put the former table back under its name and retry; {remedy}"
    )


def taken_over(context: Context, connection: sa.Connection, tables: Sequence[TableSet], run: Run) -> dict[str, str | None]:
    """The identities that count after a verification: a table for which a switch was refused is the live one, once a person has been
    told so and has had it compared with green."""
    known: dict[str, str | None] = dict(run.record.get(LIVE, {}))
    replaced: dict[str, str | None] = run.record.get(REPLACED, {})
    if not replaced or context.dialect.identity_lost_by is None:
        return known
    now = identities(context, connection, tables)
    return known | {name: each for name, each in replaced.items() if now.get(name) == each}


def untold(context: Context, connection: sa.Connection, tables: Sequence[TableSet]) -> Iterator[Finding]:
    """Live tables whose identity this account is not told."""
    names = sorted(name for name, each in identities(context, connection, tables).items() if each is None)
    if names:
        yield Finding(
            about="live tables",
            problem=f"this account is not told which table {', '.join(names)} is, so that it goes unnoticed if somebody puts another table in "
            "its place before the switch",
            remedy="see to it that nobody does",
        )
