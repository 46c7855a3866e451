"""Checks that the live tables, and the objects that depend on them, are still those that green was created like.

A new table under the name of a dropped or renamed one looks the same by name. So the run records each live table's
identity when it creates green, and the cutover compares it. The cutover also refuses what the plan refuses. It runs the
same checks before writers wait, and compares a fingerprint of the dependent objects while the tables are locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild.dialects.base import TablesChanged
from projection_rebuild.errors import ChangedSince, CloneError
from projection_rebuild.ledger import Identities, Run
from projection_rebuild.model.findings import Finding, lines
from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step


def identities(step: Step, tables: Sequence[TableSet]) -> Identities:
    """The identity of each live table now, by name; None: the database does not report it to this account."""
    names = [table.blue for table in tables]
    current: Identities = step.dialect.inspector.identities(step.connection, step.schema, names)
    return current


def refuse_replaced(step: Step, tables: Sequence[TableSet], run: Run) -> None:
    """Refuses the cutover if a live table is not the one that green was created like.

    :raises CloneError: names the tables, and what to do
    """
    if replaced := _replaced(step, tables, run):
        step.ledger.runs.amend(replaced_tables=replaced)
        raise CloneError(_another(step.context, run, sorted(replaced)))


def _replaced(step: Step, tables: Sequence[TableSet], run: Run) -> dict[str, str]:
    """The live tables that are not those that green was created like, by name, with their identities now.

    :raises CloneError: a live table is gone
    """
    current = identities(step, tables)
    known = run.record.live_tables or {}
    changed = {name: identity for name, identity in current.items() if known.get(name) not in (None, identity)}
    refuse_gone(step, sorted(name for name, identity in changed.items() if identity is None))
    # A table that exists without an identity proves nothing: this account may just have lost the privilege to see it.
    return {name: identity for name, identity in changed.items() if identity is not None}


def refuse_gone(step: Step, names: Sequence[str]) -> None:
    """Refuses to go on if a live table is gone.

    :raises CloneError: names the tables, and what to do
    """
    gone = [name for name in names if not step.dialect.inspector.table_exists(step.connection, step.schema, name)]
    if gone:
        raise CloneError(
            f"the live table {', '.join(gone)} is gone: it was renamed or dropped since green was made like it. Nothing has been "
            "switched, green stays. Put it back, then retry"
        )


def refuse_at_once(step: Step, tables: Sequence[TableSet], run: Run) -> None:
    """Refuses gone and replaced live tables before a step completes green like blue.

    Green cannot be completed from another table. On databases where some statements give the same table another
    identity, only gone tables are refused here; the cutover compares the identities.

    :raises CloneError: see :func:`refuse_replaced`
    """
    refuse_gone(step, [table.blue for table in tables])
    if step.dialect.inspector.identity_lost_by is None:
        refuse_replaced(step, tables, run)


LOOKS = 2
"""How often the engine completes green: the second time covers objects that blue got between completion and check."""


MISSING = 3
"""How many attempts may end with a name that the database does not find: it need not be a live table's name."""


class Readiness:
    """Checks whether the tables can be swapped as they are: before writers wait, and again under the tables' locks."""

    def __init__(self, step: Step, tables: Sequence[TableSet]) -> None:
        self._step = step
        self._tables = tables
        self._seen: str | None = None
        self._missing = 0

    def look(self) -> None:
        """Gives green the objects that blue got since, and refuses those that cannot be carried over. No writer waits.

        :raises CloneError: names what has changed, and what to do
        """
        dialect = self._step.dialect
        if self._seen is not None and dialect.dependents.hanging(self._step.connection, self._tables) == self._seen:
            return
        run = self._step.ledger.runs.get()
        refuse_at_once(self._step, self._tables, run)
        for again in reversed(range(LOOKS)):
            for statement in dialect.before_swap(self._step.connection, self._tables):
                dialect.run(self._step.connection, statement)
            # The fingerprint comes before the checks: a later change then makes a difference to it.
            self._seen = dialect.dependents.hanging(self._step.connection, self._tables)
            refuse_uncarried(self._step, self._tables)
            try:
                dialect.swap_statements(self._step.connection, self._tables)
                break
            except ChangedSince as error:
                if not again:
                    raise self._altered(run, error) from None
        # Last: an altered table is reported as altered, though on some databases it has another identity too.
        refuse_replaced(self._step, self._tables, run)

    def _altered(self, run: Run, error: ChangedSince) -> ChangedSince:
        """The refusal of an altered table; it adds what to do if the table's identity has changed as well."""
        replaced = _replaced(self._step, self._tables, run)
        if not replaced:
            return error
        self._step.ledger.runs.amend(replaced_tables=replaced)
        return ChangedSince(
            f"{error.message}. In the second case clear `verify_counts` and what follows it, since the change has made another table of "
            f"{', '.join(sorted(replaced))}: green is then compared with this one. If another table was put in its place, put the former one "
            "back instead"
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Turns a change of the tables into :class:`TablesChanged`: the next attempt then begins with a look.

        :raises TablesChanged: a table, or an object that depends on one, has changed; the attempt is undone
        """
        try:
            yield
        except sa.exc.DBAPIError as error:
            self._missing += self._step.dialect.names_changed(error)
            if not self._step.dialect.names_changed(error) or self._missing == MISSING:
                raise
            self._seen = None
            raise TablesChanged from error
        except (ChangedSince, TablesChanged) as error:
            self._seen = None
            raise TablesChanged from error

    def confirm(self, fingerprint: str) -> None:
        """Compares the fingerprint while the tables are locked.

        :param fingerprint: of the dependent objects now, from :meth:`HeldTables.fingerprint`
        :raises TablesChanged: the tables have changed since :meth:`look`
        """
        if fingerprint != self._seen:
            raise TablesChanged


def refuse_uncarried(step: Step, tables: Sequence[TableSet]) -> None:
    """Refuses the cutover if the tables have dependent objects that a plan would refuse.

    :raises ChangedSince: names the objects, and what to do
    """
    if findings := step.dialect.dependents.unsupported_objects(step.connection, tables):
        raise ChangedSince(
            "since the rebuild was planned, the live tables were given what a switch would lose or break. Nothing has been switched, green "
            "stays. Do what each line says, then retry:\n" + "\n".join(lines(findings))
        )


def _another(context: Context, run: Run, names: list[str]) -> str:
    """The message for live tables that have been replaced."""
    if run.plan.rolls_back:
        remedy = "or trigger the rollback anew"
    elif context.dialect.inspector.identity_lost_by is None:
        remedy = "or clear `clone_tables` and what follows it, so that green is made like the table that is there now"
    else:
        remedy = (
            f"or, if it is the right one ({context.dialect.inspector.identity_lost_by} makes another one of a table, too), clear `verify_counts` and what "
            "follows it: green is then compared with this one, and may replace it"
        )
    return (
        f"the live table {', '.join(names)} is another one than when green was made like it: somebody has made it anew, or put another table "
        f"in its place. Nothing has been switched, green stays. Put the former table back under its name and retry; {remedy}"
    )


def taken_over(step: Step, tables: Sequence[TableSet], run: Run) -> Identities:
    """The identities that count after a verification, by table name.

    A cutover that refuses a replaced table names it, and an operator may then verify again. That verification compares
    the new table with green, so it counts as the live one.
    """
    known, replaced = run.record.live_tables or {}, run.record.replaced_tables
    if not replaced or step.dialect.inspector.identity_lost_by is None:
        return known
    current = identities(step, tables)
    return known | {name: identity for name, identity in replaced.items() if current.get(name) == identity}


def untold(step: Step, tables: Sequence[TableSet]) -> Iterator[Finding]:
    """A finding for the live tables whose identity the database does not report to this account."""
    names = sorted(name for name, identity in identities(step, tables).items() if identity is None)
    if names:
        yield Finding(
            about="live tables",
            problem=f"{step.dialect.inspector.identity_untold} which table {', '.join(names)} is, so the engine does not notice if another table "
            "takes its place before the switch",
            remedy="make sure that none does",
        )
