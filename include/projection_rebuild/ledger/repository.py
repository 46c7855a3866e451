"""What the repositories of the ledger have in common, and how values are stored in its tables."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

import orjson
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.ledger import schema as ledger_schema
from projection_rebuild.ledger.schema import Schema


class Repository:
    """One aggregate of the ledger, for one run over one connection. Writes are part of the transaction that is open on it.

    :param dialect: the database
    :param schema: the tables of the ledger
    :param connection: to the database
    :param run_id: the run that the verbs are about, where they do not say otherwise
    """

    def __init__(self, dialect: Dialect, schema: Schema, connection: sa.Connection, run_id: str) -> None:
        self._dialect = dialect
        self._schema = schema
        self._connection = connection
        self._run_id = run_id

    def of(self, run_id: str) -> Self:
        """The same of another run, over the same connection."""
        return type(self)(self._dialect, self._schema, self._connection, run_id)

    def _has(self, table: sa.Table) -> bool:
        """Whether a table is there; a ledger that an earlier version made may lack it until its next run."""
        return ledger_schema.exists(self._dialect, self._connection, table)

    def _make(self, table: sa.Table) -> None:
        """Makes a table that a ledger of an earlier version lacks, under a run that this version goes on with."""
        if not self._has(table):
            ledger_schema.create(self._dialect, self._connection, self._schema)


def now() -> str:
    """The time, as it is stored."""
    return as_text(datetime.now(UTC))


def as_text(moment: datetime) -> str:
    """A moment, as it is stored: in UTC, without an offset."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")


def as_moment(text: str) -> datetime:
    """A stored moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def as_json(value: object) -> str:
    """A value as JSON; what JSON has no form for, as text."""
    return orjson.dumps(value, default=str).decode()


def from_json(text: str) -> Any:
    """A stored value."""
    return orjson.loads(text)
