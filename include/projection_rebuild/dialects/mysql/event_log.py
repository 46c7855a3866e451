"""The event store on MySQL and MariaDB: fence, waits for appends, and SQL expressions."""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.dialects.base import EventExpressions, EventLog, Fence
from projection_rebuild.dialects.mysql.base import MySQLBase
from projection_rebuild.errors import SettleTimeout
from projection_rebuild.model.column_kinds import ColumnKind


class MySQLEventLog(MySQLBase, EventLog, EventExpressions):
    """See :class:`EventLog` and :class:`EventExpressions`."""

    @contextmanager
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> Iterator[Fence]:
        # FLUSH TABLES waits for appends in flight and does not starve under new ones, as LOCK TABLES ... READ does.
        with self.connect() as connection:
            self.limit_lock_wait(connection, timeout)
            self.limit_silence(connection, longest)
            with self.killed_after(connection, timeout):
                self._execute(connection, f"FLUSH TABLES {self.qualified(schema, table)} WITH READ LOCK")
            try:
                yield Fence(lambda: self._still_there(connection))
            finally:
                try:
                    self._execute(connection, "UNLOCK TABLES")
                    self.limit_silence(connection, None)
                except sa.exc.SQLAlchemyError:
                    # The lock ends with its connection; the caller needs the first error.
                    connection.invalidate()

    def _wait_at_the_fence(self, schema: str | None, table: str, began: float, patience: timedelta) -> None:
        """Waits for the end of all appends in flight, by a fence that it takes and releases.

        A fence also waits for readers, and later clients wait behind it. So each try waits briefly, and then pauses for
        longer; both times grow with the time that has passed.

        :param began: when the caller began to wait, by the monotonic clock
        :raises SettleTimeout: appends in flight did not end within ``patience``
        """
        while True:
            waited = time.monotonic() - began
            left = patience.total_seconds() - waited
            try:
                with self.fence(schema, table, timedelta(seconds=min(1, max(0.1, waited / 20)))):
                    return
            except sa.exc.DBAPIError as error:
                if not self.is_lock_timeout(error):
                    raise
                if left < 0:
                    raise not_settled(table, patience) from error
            time.sleep(max(0, min(10, waited, left)) + random.uniform(0.02, 0.1))  # noqa: S311 - spreads retries, guards nothing

    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # No collation that both servers have distinguishes trailing blanks.
        return sa.type_coerce(sa.cast(self.utf8(text), sa.LargeBinary), sa.String)

    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.type_coerce(sa.func.convert(column.op("USING")(sa.literal_column("utf8mb4"))), sa.Text)

    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.lower(sa.func.hex(column), type_=sa.Text)

    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        path = '$."' + field.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text = self.utf8(payload) if kind is ColumnKind.BYTES else payload
        value = sa.func.json_unquote(self._last(text, path), type_=sa.Text)
        return value if kind is ColumnKind.JSON else sa.case((sa.func.json_valid(text) == 1, value))

    @abstractmethod
    def _last(self, text: sa.ColumnElement[Any], path: str) -> sa.ColumnElement[Any]:
        """The JSON value at a path; if an object has the key twice, the last one, as in Python."""

    def equals_bytes(self, quoted: str) -> str:
        return f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY) = CAST(%s AS BINARY)"

    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        return sa.func.mod(sa.func.crc32(text), count, type_=sa.BigInteger)

    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        kind = mysql.DATETIME(fsp=6)
        return sa.cast(column, kind) < sa.literal(moment.astimezone(UTC).replace(tzinfo=None), kind)


def not_settled(table: str, patience: timedelta) -> SettleTimeout:
    """The error for appends in flight that did not end within ``patience``."""
    return SettleTimeout(
        f"transactions that append to {table} did not end within {patience.total_seconds():.0f} s; look for long transactions in "
        "information_schema.INNODB_TRX, then retry"
    )
