"""Whether the live tables, and what hangs on them, are still as green was made like them.

A dropped or renamed table whose name is given to a new one looks the same to whoever goes by names. So the run records each live
table's identity when green is made, and the swap compares it. What the plan refuses, the swap refuses too: it asks the same
question before anybody is held, and compares a fingerprint of the answer while the tables are held.
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
    """The identity of each live table now, by name; None: the database does not tell us."""
    found: Identities = step.dialect.inspector.identities(step.connection, step.schema, [table.blue for table in tables])
    return found


def refuse_replaced(step: Step, tables: Sequence[TableSet], run: Run) -> None:
    """Refuses to swap where a live table is not the one that green was made like.

    :raises CloneError: names the tables, and what to do
    """
    if replaced := _replaced(step, tables, run):
        step.ledger.runs.amend(replaced_tables=replaced)
        raise CloneError(_another(step.context, run, sorted(replaced)))


def _replaced(step: Step, tables: Sequence[TableSet], run: Run) -> dict[str, str]:
    """The live tables that are not those that green was made like, with their identities now."""
    now = identities(step, tables)
    known = run.record.live_tables or {}
    replaced = {name: each for name, each in now.items() if known.get(name) is not None and each != known[name]}
    refuse_gone(step, sorted(name for name, each in replaced.items() if each is None))
    # Where only the privilege to see it has gone, that says nothing.
    return {name: each for name, each in replaced.items() if each is not None}


def refuse_gone(step: Step, names: Sequence[str]) -> None:
    """Refuses to go on without a live table.

    :raises CloneError: names them, and what to do
    """
    gone = [name for name in names if not step.dialect.inspector.table_exists(step.connection, step.schema, name)]
    if gone:
        raise CloneError(
            f"the live table {', '.join(gone)} is gone: somebody has renamed or dropped it since green was made like it. Nothing has been "
            "switched, green stays. Put it back, then retry"
        )


def refuse_at_once(step: Step, tables: Sequence[TableSet], run: Run) -> None:
    """The same before green is given what blue has: of another table it could not be completed.

    Where a table gets another identity by some statements and is the same one all the same, this is left to the swap.

    :raises CloneError: see :func:`refuse_replaced`
    """
    refuse_gone(step, [table.blue for table in tables])
    if step.dialect.inspector.identity_lost_by is None:
        refuse_replaced(step, tables, run)


LOOKS = 2
"""How often is looked for what blue has been given: what comes between green's completion and the look is given to it as well."""


MISSING = 3
"""How many attempts may end with a name that the database does not find: it need not be one of the live tables'."""


class Readiness:
    """Whether the tables can be swapped as they are: looked at before anybody is held, and once more while they are held."""

    def __init__(self, step: Step, tables: Sequence[TableSet]) -> None:
        self._step = step
        self._tables = tables
        self._seen: str | None = None
        self._missing = 0

    def look(self) -> None:
        """Gives green what blue has been given since it was made, and refuses what cannot be carried over. Nobody is held.

        :raises CloneError: names what has been changed, and what to do
        """
        dialect = self._step.dialect
        if self._seen is not None and dialect.dependents.hanging(self._step.connection, self._tables) == self._seen:
            return
        run = self._step.ledger.runs.get()
        refuse_at_once(self._step, self._tables, run)
        for again in reversed(range(LOOKS)):
            for statement in dialect.before_swap(self._step.connection, self._tables):
                dialect.run(self._step.connection, statement)
            # Before it is looked at: what comes later than this makes a difference.
            self._seen = dialect.dependents.hanging(self._step.connection, self._tables)
            refuse_uncarried(self._step, self._tables)
            try:
                dialect.swap_statements(self._step.connection, self._tables)
                break
            except ChangedSince as error:
                if not again:
                    raise self._altered(run, error) from None
        # After it: what has been altered is told as that, though some databases make another table of it.
        refuse_replaced(self._step, self._tables, run)

    def _altered(self, run: Run, error: ChangedSince) -> ChangedSince:
        """The refusal of an altered table, with what is to be done where the database has made another table of it."""
        replaced = _replaced(self._step, self._tables, run)
        if not replaced:
            return error
        self._step.ledger.runs.amend(replaced_tables=replaced)
        return ChangedSince(
            f"{error.message}. In the second case clear `verify_counts` and what follows it then, since the change has made another table of "
            f"{', '.join(sorted(replaced))}: green is compared with this one. If somebody has put another table in its place, put the former one back instead"
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it a change is no error: the attempt is undone, and the next one begins with a look."""
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
        """Looks once more, while the tables are held.

        :param fingerprint: what hangs on the tables now, as :meth:`HeldTables.fingerprint` tells it
        :raises TablesChanged: something was done to the tables since :meth:`look`
        """
        if fingerprint != self._seen:
            raise TablesChanged


def refuse_uncarried(step: Step, tables: Sequence[TableSet]) -> None:
    """Refuses to swap what a plan would refuse.

    :raises ChangedSince: names each object, and what to do
    """
    if findings := step.dialect.dependents.unsupported_objects(step.connection, tables):
        raise ChangedSince(
            "since the rebuild was planned, the live tables were given what a switch would lose or break. Nothing has been switched, green "
            "stays. Do what each line says, then retry:\n" + "\n".join(lines(findings))
        )


def _another(context: Context, run: Run, names: list[str]) -> str:
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
    """The identities that count after a verification: a table for which a switch was refused is the live one, once a person has been
    told so and has had it compared with green."""
    known, replaced = run.record.live_tables or {}, run.record.replaced_tables
    if not replaced or step.dialect.inspector.identity_lost_by is None:
        return known
    now = identities(step, tables)
    return known | {name: each for name, each in replaced.items() if now.get(name) == each}


def untold(step: Step, tables: Sequence[TableSet]) -> Iterator[Finding]:
    """Live tables whose identity this account is not told."""
    names = sorted(name for name, each in identities(step, tables).items() if each is None)
    if names:
        yield Finding(
            about="live tables",
            problem=f"{step.dialect.inspector.identity_untold} which table {', '.join(names)} is, so that it goes unnoticed if somebody puts another "
            "table in its place before the switch",
            remedy="see to it that nobody does",
        )
