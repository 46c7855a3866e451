"""Writes and reads rows on SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import sqlalchemy as sa

from projection_rebuild.dialects.base import RowStore
from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.rows.types import RowType, Values
from projection_rebuild.rows.values import TEXT_BINDS


class SqliteRowStore(SqliteBase, RowStore):
    """See :class:`RowStore`."""

    # About a tenth of a second, for which the application's writers wait.
    rows_per_transaction = 20_000
    binds = TEXT_BINDS
    row_lock = ""

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        columns = self._execute(connection, f"PRAGMA table_info({self.quote(table)})")
        # If the database assigns the keys, rows must keep the order of the events.
        numbered = not {column.name for column in columns if column.pk} <= {*kind.columns}
        super().load_rows(connection, schema, table, kind, rows if numbered else _by_key(kind, rows))

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        return super().update_many(connection, schema, table, kind, _by_key(kind, rows))

    def _values_list(self, mark: str, count: int) -> str:
        # SQLite accepts row values on the left of IN only with a VALUES list on the right.
        return f"(VALUES {', '.join([mark] * count)})" if mark.startswith("(") else super()._values_list(mark, count)


def _by_key(kind: RowType, rows: Sequence[Values]) -> Sequence[Values]:
    """Sorts rows by key, so that writing passes through the key's index once: a connection caches few of its pages."""
    try:
        return sorted(rows, key=itemgetter(*map(kind.columns.index, kind.key)))
    except TypeError:
        # Python cannot compare these keys.
        return rows
