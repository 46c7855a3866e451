"""Rows of real tables: where a buffer loads from and writes to, in bulk on green or one event at a time on blue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from include.projection_rebuild.dialects import Dialect
from include.projection_rebuild.errors import RebuildError
from include.projection_rebuild.rows import Changes, Key, RowType, Values


class WriteError(RebuildError):
    """The database refused rows; names table and reason, never a value."""


class GreenTables:
    """The tables of a run under their green names, for one worker at a time.

    :param name_of: the green name of a live table
    """

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None, name_of: Callable[[str], str]) -> None:
        self._dialect = dialect
        self._connection = connection
        self._schema = schema
        self._name_of = name_of

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """See :class:`~include.projection_rebuild.rows.RowSource`."""
        return self._dialect.select_rows(self._connection, self._schema, self._name_of(kind.table), kind, keys)

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """See :class:`~include.projection_rebuild.rows.RowSource`."""
        return self._dialect.select_where(self._connection, self._schema, self._name_of(kind.table), kind, column, values)

    def create(self, kind: RowType, values: Values) -> None:
        """Nobody else writes green: a missing row is made in memory."""

    def delete(self, changes: Sequence[Changes]) -> None:
        """Deletes what was removed, in bulk, in the caller's transaction.

        :raises WriteError: the database refused (rows of another table refer to these)
        """
        for change in reversed(changes):
            self._do("delete from", change.kind, self._dialect.delete_rows, change.deleted)

    def put(self, changes: Sequence[Changes]) -> None:
        """Updates and inserts, in bulk, in the caller's transaction.

        :raises WriteError: the database refused rows (a duplicate, a value that does not fit, no parent)
        """
        for change in changes:
            self._do("update", change.kind, self._dialect.update_many, change.updated)
            self._do("insert into", change.kind, self._dialect.load_rows, change.inserted)

    def _do(self, what: str, kind: RowType, verb: Callable[..., None], rows: Sequence[Any]) -> None:
        if not rows:
            return
        table = self._name_of(kind.table)
        try:
            verb(self._connection, self._schema, table, kind, rows)
        except Exception as error:
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) and error.orig is not None else error
            if not _is_about_data(cause):
                raise
            # Without the driver's text and without the chain: both quote values.
            raise WriteError(
                f"cannot {what} {table} ({len(rows)} rows): {type(cause).__name__} {_code(cause)}. A handler adds a row twice, or "
                "gives a value that the column does not take; nothing of this batch was written"
            ) from None


class BlueTables(GreenTables):
    """The live tables, inside the application's own transaction: rows are locked as they are loaded."""

    def __init__(self, dialect: Dialect, connection: sa.Connection, schema: str | None) -> None:
        super().__init__(dialect, connection, schema, lambda table: table)

    def load(self, kind: RowType, keys: Iterable[Key]) -> Iterable[Values]:
        """Loads and locks: another transaction that changes the same row waits, so no change is lost."""
        return self._dialect.select_rows(self._connection, self._schema, kind.table, kind, keys, lock=True)

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> Iterable[Values]:
        """Loads and locks."""
        return self._dialect.select_where(self._connection, self._schema, kind.table, kind, column, values, lock=True)

    def create(self, kind: RowType, values: Values) -> None:
        """Puts a missing row in at once, so that two transactions that both miss it wait for each other."""
        self._dialect.insert_if_absent(self._connection, self._schema, kind.table, kind, values)

    def write(self, changes: Sequence[Changes]) -> None:
        """Writes the few rows of one event."""
        for change in reversed(changes):
            self._dialect.delete_rows(self._connection, self._schema, change.kind.table, change.kind, change.deleted)
        for change in changes:
            self._dialect.update_rows(self._connection, self._schema, change.kind.table, change.kind, change.updated)
            self._dialect.insert_rows(self._connection, self._schema, change.kind.table, change.kind, change.inserted)


def _is_about_data(cause: BaseException) -> bool:
    return type(cause).__name__ in {"IntegrityError", "DataError", "UniqueViolation"} or _code(cause)[:2] in {"22", "23"}


def _code(cause: BaseException) -> str:
    found = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
    return str(found or (cause.args[0] if cause.args and isinstance(cause.args[0], int) else ""))
