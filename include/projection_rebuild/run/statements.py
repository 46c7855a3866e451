"""The statements of a swap, as a dry run prints them."""

from __future__ import annotations

from collections.abc import Sequence

from projection_rebuild.model.names import TableSet
from projection_rebuild.run.context import Context
from projection_rebuild.run.step import Step


def planned_swap(step: Step, tables: Sequence[TableSet]) -> list[str]:
    """The statements of a swap and what follows it at once, before there is anything to be swapped."""
    dialect = step.dialect
    swap = dialect.swap_statements(step.connection, tables, planned=True)
    return [*within(step.context, swap.statements), *swap.after()]


def within(context: Context, statements: Sequence[str]) -> list[str]:
    """In one transaction, where that holds them together."""
    return [*statements] if context.dialect.ddl_commits else [context.dialect.begin, *statements, "COMMIT"]


def printed(step: Step, statements: Sequence[str]) -> list[str]:
    """The statements as they stand in a shell, after the settings of the session in which they are meant."""
    return [*step.dialect.session(step.connection), *statements]
