"""The cutover strategy of SQLite: one BEGIN IMMEDIATE transaction, which blocks all other writers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from projection_rebuild.dialects.base import CutoverInTransaction, HeldBack, HeldInTransaction, HeldTables, LockPolicy
from projection_rebuild.model.names import TableSet


class SingleWriterCutover(CutoverInTransaction):
    """The transaction of the swap blocks all other writes to its file, including appends."""

    def needs_fence(self, held_back: HeldBack, *, one_database: bool) -> bool:
        return super().needs_fence(held_back, one_database=one_database) and not one_database

    @contextmanager
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> Iterator[HeldTables]:
        self._dialect.limit_lock_wait(connection, policy.timeout)
        try:
            with self._dialect.transaction(connection):
                yield HeldInTransaction(self._dialect, connection, tables)
        finally:
            # A failed swap may have left it on.
            with suppress(sa.exc.SQLAlchemyError):
                self._dialect.run(connection, "PRAGMA writable_schema = 0")
