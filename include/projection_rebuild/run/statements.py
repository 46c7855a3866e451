"""The statements of a swap in the form that a dry run prints."""

from __future__ import annotations

from collections.abc import Sequence

from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step


def planned_swap(step: Step, tables: Sequence[TableSet]) -> list[str]:
    """The statements of a swap and those right after it, for tables that the run has not created yet."""
    dialect = step.dialect
    swap = dialect.swap_statements(step.connection, tables, planned=True)
    return [*within(step.context, swap.statements), *swap.after()]


def within(context: Context, statements: Sequence[str]) -> list[str]:
    """Puts statements into one transaction, if the database can roll DDL back."""
    return [*statements] if context.dialect.ddl_commits else [context.dialect.begin, *statements, "COMMIT"]


def printed(step: Step, statements: Sequence[str]) -> list[str]:
    """The statements for a shell, after the settings of the session that they need."""
    return [*step.dialect.session(step.connection), *statements]
