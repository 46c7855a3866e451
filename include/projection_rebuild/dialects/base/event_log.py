"""The event store, as a database sees it."""

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
    """Appends are held back.

    :param holds: whether the fence is still there, asked over its own connection
    """

    holds: Callable[[], bool]


class EventLog(Sessions):
    """Tells up to where the event store is settled, and holds appends back."""

    @abstractmethod
    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        """The highest position below which nothing can commit any more; the beginning for an empty store.

        :raises SettleTimeout: appends in flight did not end within ``patience``
        """

    @abstractmethod
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> AbstractContextManager[Fence]:
        """Holds appends back as long as the context lasts; within it every append is visible or has not begun.

        :param timeout: the longest wait for it
        :param longest: for how long it may stand; past it the server should give it up by itself, should we be gone without a word
        """

    def newest_position(self, connection: sa.Connection, schema: str | None, table: str, position_column: str) -> Place:
        """The highest position that is visible now; the beginning for an empty table."""
        statement = f"SELECT max({self.quote(position_column)}) FROM {self.qualified(schema, table)}"
        found = self._execute(connection, statement).scalar()
        return None if found is None else int(found)

    def _still_there(self, connection: sa.Connection) -> bool:
        try:
            self._execute(connection, "SELECT 1")
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def hands_out_ahead(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> str | None:
        """The name of what gives each session numbers of this column in advance, so that a later event may get a lower one; None: nothing."""
        return None


class EventExpressions(Statements):
    """What stands in queries for the columns of an event store, whatever their types and collations are."""

    def reads_json(self, kind: ColumnKind) -> bool:
        """Whether :meth:`json_field` can be asked of a column of this kind."""
        return True

    @abstractmethod
    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        """A field of a JSON object, as text; null where there is none, and where the payload is no JSON: that is no error here."""

    def payload(self, column: sa.ColumnElement[Any], kind: ColumnKind) -> sa.ColumnElement[Any]:
        """A column of JSON as a driver hands it over soonest: text or bytes, never an object of the driver's."""
        return column if kind is ColumnKind.BYTES else sa.cast(column, sa.Text)

    @abstractmethod
    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A text that is equal to another one only if their bytes are, whatever its collation says.

        A query may return it as bytes.
        """

    @abstractmethod
    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """The same as :meth:`exact`, as a text that others may group and compare."""

    @abstractmethod
    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """Bytes that hold UTF-8, as text; what other bytes become differs, but is no error of the statement."""

    def as_bytes(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A text, as bytes where the driver could fail to make a text of it."""
        return text

    @abstractmethod
    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """Bytes as lower-case hexadecimal digits."""

    @abstractmethod
    def equals_bytes(self, quoted: str) -> str:
        """A condition: a column of text has the bytes of a bound text, whatever its collation says."""

    @abstractmethod
    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        """A number below ``count``, always the same for the same text."""

    def is_in_shard(self, text: sa.ColumnElement[str], number: int, count: int) -> sa.ColumnElement[bool]:
        """Whether a text is of one of ``count`` shards."""
        return self.shard_number(text, count) == number

    @abstractmethod
    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        """A condition: a column that holds a time, or its text (UTC where it has no offset), lies before a moment."""

    time_grain: ClassVar[timedelta] = timedelta(0)
    """How far :meth:`before` may be out."""

    def no_time(self, quoted: str) -> str | None:
        """A condition: a text is none that :meth:`before` knows for a time. None: this database has types for times."""
        return None
