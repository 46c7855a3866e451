"""SQL expressions for the columns of an event store on SQLite."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import EventExpressions
from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.model.column_kinds import ColumnKind


class SqliteEventExpressions(SqliteBase, EventExpressions):
    """See :class:`EventExpressions`."""

    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        return sa.func.projection_rebuild_field(payload, field, type_=sa.Text)

    def payload(self, column: sa.ColumnElement[Any], kind: ColumnKind) -> sa.ColumnElement[Any]:
        return self.as_bytes(column)

    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.collate(sa.cast(text, sa.Text), "BINARY")

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        # A subquery passes a column's collation on, even through CAST.
        return self.exact(text)

    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.cast(column, sa.Text)

    def as_bytes(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # The driver raises an error for text that is no UTF-8, and quotes the text in it. With a file in UTF-16, a BLOB would
        # have the bytes of UTF-16.
        return sa.cast(text, sa.LargeBinary) if self._writes_utf8 else text

    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.lower(sa.func.hex(column), type_=sa.Text)

    def equals_bytes(self, quoted: str) -> str:
        return f"{quoted} COLLATE BINARY = ?"

    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        return sa.func.projection_rebuild_crc(sa.cast(text, sa.LargeBinary), type_=sa.Integer) % count

    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        utc = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        return sa.func.strftime("%Y-%m-%d %H:%M:%f", column) < utc

    time_grain = timedelta(milliseconds=1)

    def no_time(self, quoted: str) -> str | None:
        # SQLite also accepts `now`, a bare time and a number as times.
        day = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
        return f"(typeof({quoted}) <> 'text' OR {quoted} NOT GLOB '{day}' OR strftime('%s', {quoted}) IS NULL)"
