"""Copies to green the rows that a partial rebuild keeps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.names import TableSet


@dataclass(frozen=True)
class KeyList:
    """A list of keys in a table of the ledger, which has the columns ``part_id`` and ``part_key``.

    :param part_id: selects the list within the table
    """

    schema: str | None
    table: str
    part_id: str


class PartialCopy(Sessions):
    """Copies and deletes rows by lists of keys."""

    def copy_others(self, connection: sa.Connection, table: TableSet, column: str, listed: KeyList) -> None:
        """Copies to green, with all columns, each row of blue whose ``column`` is not in the list.

        It works in the caller's transaction.
        """
        columns = self._list(self._stored_columns(connection, table))
        blue, green = self.qualified(table.schema, table.blue), self.qualified(table.schema, table.green)
        self._execute(
            connection,
            f"INSERT INTO {green} ({columns}){self.overriding} SELECT {columns} FROM {blue} b WHERE NOT "
            + self._is_listed("b", column, listed),
            listed.part_id,
        )

    overriding: ClassVar[str] = ""

    def delete_listed(self, connection: sa.Connection, table: TableSet, column: str, listed: KeyList) -> None:
        """Deletes the rows of green whose ``column`` is in the list, in the caller's transaction."""
        green = self.qualified(table.schema, table.green)
        self._execute(connection, f"DELETE FROM {green} WHERE " + self._is_listed(green, column, listed), listed.part_id)

    def distinct(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> set[str]:
        """The distinct values of a column, as text, without NULL."""
        text = self.as_text(self.quote(column))
        values = self._execute(connection, f"SELECT DISTINCT {text} FROM {self.qualified(schema, table)}").scalars()
        return {str(value) for value in values if value is not None}

    def _is_listed(self, row: str, column: str, listed: KeyList) -> str:
        keys = self.qualified(listed.schema, listed.table)
        text = self.as_text(f"{row}.{self.quote(column)}")
        return f"EXISTS (SELECT 1 FROM {keys} k WHERE k.part_id = {self._mark} AND k.part_key = {text})"

    @abstractmethod
    def as_text(self, expression: str) -> str:
        """A column as the text of Python's ``str(value)``, for the types ``str``, ``int``, ``date`` and ``UUID``."""

    @abstractmethod
    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Blue's columns without generated columns."""
