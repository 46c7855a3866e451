"""The event store's table: its high-water mark, its fence, and SQL expressions over its columns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.dialects.base.statements import Statements
from projection_rebuild.model.column_kinds import ColumnKind
from projection_rebuild.model.positions import Place


@dataclass(frozen=True)
class Fence:
    """A lock on the event store: appends wait until it is gone.

    :param holds: returns whether the fence still holds, by a query over its own connection
    """

    holds: Callable[[], bool]


class EventLog(Sessions):
    """Finds the high-water mark of the event store, and fences the store."""

    @abstractmethod
    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        """The high-water mark: the highest position below which no append can commit any more.

        :returns: the beginning for an empty store
        :raises SettleTimeout: appends in flight did not end within ``patience``
        """

    @abstractmethod
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> AbstractContextManager[Fence]:
        """Fences the event store while the context lasts; within it every append is visible or has not begun.

        :param timeout: the longest wait for the fence
        :param longest: how long the fence may last; past it the server should release it by itself, if this process has
            died without closing its connection
        """

    def newest_position(self, connection: sa.Connection, schema: str | None, table: str, position_column: str) -> Place:
        """The highest position that is visible now; the beginning for an empty table."""
        statement = f"SELECT max({self.quote(position_column)}) FROM {self.qualified(schema, table)}"
        highest = self._execute(connection, statement).scalar()
        return None if highest is None else int(highest)

    def _still_there(self, connection: sa.Connection) -> bool:
        try:
            self._execute(connection, "SELECT 1")
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def hands_out_ahead(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> str | None:
        """The name of the sequence that reserves numbers of this column for each session in advance; None: none does.

        With such a sequence a later event may get a lower position.
        """
        return None


class EventExpressions(Statements):
    """Expressions for the columns of an event store, whatever their types and collations are."""

    def reads_json(self, kind: ColumnKind) -> bool:
        """Whether :meth:`json_field` works on a column of this kind."""
        return True

    @abstractmethod
    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        """A field of a JSON object, as text; NULL, and no error, if the field is missing or the payload is no JSON."""

    def payload(self, column: sa.ColumnElement[Any], kind: ColumnKind) -> sa.ColumnElement[Any]:
        """A column of JSON in the form that drivers return fastest: text or bytes, never a decoded object."""
        return column if kind is ColumnKind.BYTES else sa.cast(column, sa.Text)

    @abstractmethod
    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A text that equals another one only if their bytes are equal, whatever its collation.

        A query may return it as bytes.
        """

    @abstractmethod
    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """As :meth:`exact`, but always a text, by which a query can group and compare."""

    @abstractmethod
    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """Bytes of UTF-8, as text; databases convert other bytes in different ways, without an error."""

    def as_bytes(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A text; as bytes if the driver could fail to decode it."""
        return text

    @abstractmethod
    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """Bytes as lower-case hexadecimal digits."""

    @abstractmethod
    def equals_bytes(self, quoted: str) -> str:
        """A condition: a column of text has the bytes of a bound text, whatever its collation."""

    @abstractmethod
    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        """A number below ``count``, always the same for the same text."""

    def is_in_shard(self, text: sa.ColumnElement[str], number: int, count: int) -> sa.ColumnElement[bool]:
        """A condition: a text belongs to shard ``number`` of ``count`` shards."""
        return self.shard_number(text, count) == number

    @abstractmethod
    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        """A condition: a column of times, or of their texts (UTC if without an offset), lies before a moment."""

    time_grain: ClassVar[timedelta] = timedelta(0)
    """The largest error of :meth:`before`."""

    def no_time(self, quoted: str) -> str | None:
        """A condition: :meth:`before` does not recognize a text as a time. None: this database has types for times."""
        return None
