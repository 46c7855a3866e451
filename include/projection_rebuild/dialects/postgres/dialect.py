"""The dialect of PostgreSQL: DDL is transactional, so a swap is one transaction under ACCESS EXCLUSIVE locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from projection_rebuild.dialects.base import Dialect, Scratch
from projection_rebuild.dialects.postgres.apart import PostgresTablesApart
from projection_rebuild.dialects.postgres.comparing import PostgresComparing
from projection_rebuild.dialects.postgres.dependents import PostgresDependents
from projection_rebuild.dialects.postgres.event_expressions import PostgresEventExpressions
from projection_rebuild.dialects.postgres.event_log import PostgresEventLog
from projection_rebuild.dialects.postgres.inspector import PostgresInspector
from projection_rebuild.dialects.postgres.partial_copy import PostgresPartialCopy
from projection_rebuild.dialects.postgres.preflight import PostgresPreflight
from projection_rebuild.dialects.postgres.shadow_tables import PostgresShadow
from projection_rebuild.dialects.postgres.swap_statements import PostgresSwapStatements
from projection_rebuild.dialects.postgres.traffic import PostgresTraffic
from projection_rebuild.dialects.postgres.transactional import TransactionalCutover


class PostgresDialect(
    PostgresInspector,
    PostgresDependents,
    PostgresTraffic,
    PostgresPreflight,
    PostgresShadow,
    PostgresTablesApart,
    PostgresComparing,
    PostgresPartialCopy,
    PostgresEventLog,
    PostgresEventExpressions,
    PostgresSwapStatements,
    Dialect,
):
    """See :class:`Dialect`. The statements were tested on PostgreSQL 15 and 18."""

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        with self._schema_apart(
            name,
            reserve="SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtext(%s))",
            make=f"CREATE SCHEMA {self.quote(name)}",
            drop=f"DROP SCHEMA IF EXISTS {self.quote(name)} CASCADE",
        ):
            yield Scratch(self, name)

    # Cutting over -----------------------------------------------------------------------------------------------

    @property
    def cutover(self) -> TransactionalCutover:
        return TransactionalCutover(self)
