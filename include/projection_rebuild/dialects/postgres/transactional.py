"""The cutover strategy of PostgreSQL: one transaction under ACCESS EXCLUSIVE locks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import sqlalchemy as sa

from projection_rebuild.dialects.base import CutoverInTransaction, HeldInTransaction, HeldTables, LockPolicy, PauseTooLong
from projection_rebuild.dialects.base.cutover import Superseded
from projection_rebuild.dialects.postgres.catalog import Catalog
from projection_rebuild.dialects.postgres.cutover import Switch
from projection_rebuild.dialects.postgres.lock_waits import longest_silence, milliseconds
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.model.names import TableSet

_LEFT = """SELECT pg_catalog.set_config('lock_timeout', greatest(1, {limit} - extract(milliseconds FROM
 pg_catalog.clock_timestamp() - pg_catalog.transaction_timestamp()))::integer::text, false)"""

_STATEMENTS_PER_CHECK = 10
"""How many statements of a swap run between two checks of the time."""


class TransactionalCutover(CutoverInTransaction):
    """One transaction. If anything fails, the server rolls back drain, drops, renames and ledger together."""

    def superseded_before(self, look: Callable[[], list[Superseded]]) -> list[Superseded]:
        return []

    def superseded_within(self, look: Callable[[], list[Superseded]]) -> list[Superseded]:
        return look()

    @contextmanager
    def lock_tables(
        self, connection: sa.Connection, tables: Sequence[TableSet], policy: LockPolicy, beside: Sequence[str]
    ) -> Iterator[HeldTables]:
        with Catalog.of(connection) as catalog:
            switch = Switch(catalog, tables)
            views, names = switch.locks(), switch.locked_tables()
        # A random order for each attempt: with a fixed one, readers that lock in the opposite order could win every attempt.
        random.shuffle(names)
        self._dialect.limit_lock_wait(connection, policy.timeout)
        with self._dialect.transaction(connection):
            first, *others = [*views, *(f"LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE" for name in names)]
            # A client that waits behind the first lock waits until the engine has the last one or gives up. So one
            # limit holds for all locks together.
            limit = milliseconds(policy.timeout)
            bounded = [statement for lock in others for statement in (_LEFT.format(limit=limit), lock)]
            locks = [longest_silence(policy.longest), first, *bounded, f"SET lock_timeout = {limit}"]
            self._dialect.run(connection, ";\n".join(locks))
            yield HeldByLocks(self._dialect, connection, tables)

    def unvalidated_orphans(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[tuple[TableSet, str]]:
        # The reconcile step validates all foreign keys that the swap added, and so reads all rows.
        return []


class HeldByLocks(HeldInTransaction):
    """The live tables, held by ACCESS EXCLUSIVE locks."""

    def run_swap(self, statements: Sequence[str], policy: LockPolicy) -> bool:
        try:
            self._dialect.run(self._connection, ";\n".join(_in_time(statements, policy.rest)))
        except sa.exc.DBAPIError as error:
            if self._dialect.kind_of(error) is Kind.CANCELLED:
                raise PauseTooLong from error
            raise
        policy.stay_in_time()
        policy.stay_fenced()
        return True


def _in_time(statements: Sequence[str], rest: timedelta) -> list[str]:
    """The statements, to be sent as one message: the server checks the time between them, and cancels one that takes
    too long."""
    limit = max(1, round(rest.total_seconds() * 1000))
    check = (
        "DO $projection_rebuild$ BEGIN IF pg_catalog.clock_timestamp() > pg_catalog.statement_timestamp() + "
        f"interval '{limit} milliseconds' THEN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END IF; END $projection_rebuild$"
    )
    checked = [
        statement
        for at in range(0, len(statements), _STATEMENTS_PER_CHECK)
        for statement in [check, *statements[at : at + _STATEMENTS_PER_CHECK]]
    ]
    # Without the COMMIT: if the server canceled that, its outcome would be unknown.
    return [f"SET LOCAL statement_timeout = {limit}", *checked, check, "SET LOCAL statement_timeout = 0"]
