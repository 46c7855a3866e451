"""Creates green tables on PostgreSQL. The module ``shadow`` builds the statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from projection_rebuild.dialects.base import ShadowTables
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.dialects.postgres.catalog import Catalog
from projection_rebuild.dialects.postgres.cutover import Switch, dropping
from projection_rebuild.dialects.postgres.shadow import Clone
from projection_rebuild.errors import CloneError
from projection_rebuild.model.names import TableSet


class PostgresShadow(PostgresBase, ShadowTables):
    """See :class:`ShadowTables`."""

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        with self._clone(connection, table) as clone:
            return list(clone.create())

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        with self._clone(connection, table) as clone:
            return list(clone.indexes())

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        with self._clone(connection, table) as clone:
            return list(clone.foreign_keys(run))

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # The swap adds the foreign keys from and to tables outside the run, and the reconcile step validates them.
        with Catalog.of(connection) as catalog:
            queries = list(Switch(catalog, run).orphans(table))
        return [f"{key.name} of {key.child}" for key, query in queries if self._execute(connection, query).first() is not None]

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # VACUUM too: a new table has no visibility map. Autovacuum would start during the cutover, and index-only scans would read
        # the table.
        return [f"VACUUM (ANALYZE) {self.qualified(table.schema, table.green)}"]

    def drop_table(self, connection: sa.Connection, table: TableSet, name: str) -> list[str]:
        with Catalog.of(connection) as catalog:
            relation = catalog.find(table.schema, name)
            return list(dropping(catalog, relation) if relation else Switch(catalog, [table]).planned_drop(name))

    @contextmanager
    def _clone(self, connection: sa.Connection, table: TableSet) -> Iterator[Clone]:
        with Catalog.of(connection) as catalog:
            blue = catalog.find(table.schema, table.blue)
            if blue is None:
                raise CloneError(f"there is no table {table.blue} any more; create it (it may be empty) and plan the run anew")
            yield Clone(catalog, table, blue)
