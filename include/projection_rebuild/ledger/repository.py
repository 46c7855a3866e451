"""The base class of the ledger's repositories, and the format of stored values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

import orjson
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.ledger import schema as ledger_schema
from projection_rebuild.ledger.schema import Schema


class Repository:
    """One aggregate of the ledger, for one run over one connection. Writes are part of its open transaction.

    :param dialect: the database
    :param schema: the tables of the ledger
    :param connection: a connection to the database
    :param run_id: the run to which the methods refer, unless they say otherwise
    """

    def __init__(self, dialect: Dialect, schema: Schema, connection: sa.Connection, run_id: str) -> None:
        self._dialect = dialect
        self._schema = schema
        self._connection = connection
        self._run_id = run_id

    def of(self, run_id: str) -> Self:
        """The same repository for another run, over the same connection."""
        return type(self)(self._dialect, self._schema, self._connection, run_id)

    def _has(self, table: sa.Table) -> bool:
        """Whether a table exists; a ledger of an earlier version may lack it until its next run."""
        return ledger_schema.exists(self._dialect, self._connection, table)

    def _make(self, table: sa.Table) -> None:
        """Creates a table that the ledger lacks, for a run that began under an earlier version."""
        if not self._has(table):
            ledger_schema.create(self._dialect, self._connection, self._schema)


def now() -> str:
    """The present time in the stored format."""
    return as_text(datetime.now(UTC))


def as_text(moment: datetime) -> str:
    """A moment in the stored format: in UTC, without an offset."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")


def as_moment(text: str) -> datetime:
    """A stored moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def as_json(value: object) -> str:
    """A value as JSON; values that JSON cannot represent become text."""
    return orjson.dumps(value, default=str).decode()


def from_json(text: str) -> Any:
    """The value of stored JSON."""
    return orjson.loads(text)
