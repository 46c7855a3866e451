"""Dependent objects on PostgreSQL: the names of those that a rebuild carries over, and those that it refuses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base import DependentObjects
from projection_rebuild.dialects.postgres import unsupported as limits
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.dialects.postgres.catalog import MATERIALIZED_VIEW, Catalog, Column, ForeignKey, Grant, Relation
from projection_rebuild.dialects.postgres.cutover import Switch
from projection_rebuild.dialects.postgres.dump import dumped
from projection_rebuild.dialects.postgres.hanging import QUERY as HANGING
from projection_rebuild.model.findings import Dependents, Finding, named
from projection_rebuild.model.names import TableSet


class PostgresDependents(PostgresBase, DependentObjects):
    """See :class:`DependentObjects`."""

    @property
    def refuses(self) -> tuple[str, ...]:
        return limits.KINDS

    def unsupported_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Finding]:
        with Catalog.of(connection) as catalog:
            return limits.refusals(catalog, Switch(catalog, tables))

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        names = [name for table in tables for name in (table.blue, table.green)]
        schema, retired = tables[0].schema, [table.old for table in tables]
        return str(self._execute(connection, HANGING, schema, names, schema, retired).scalar_one())

    def dependent_objects(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Dependents]:
        with Catalog.of(connection) as catalog:
            return list(dependents_of(catalog, Switch(catalog, tables)))

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        oid = self._oid(connection, schema, table)
        with Catalog.of(connection) as catalog:
            keys = catalog.foreign_keys([oid]) if oid else []
        return {key.parent_name for key in keys if key.child_oid == oid and key.parent_schema == schema} - {table}

    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        return dumped(connection)


def dependents_of(catalog: Catalog, switch: Switch) -> Iterator[Dependents]:
    """The dependent objects of the tables of a swap, and of the materialized views over them."""
    for moved in switch.moved:
        yield from _of(catalog, moved.blue)


def _of(catalog: Catalog, blue: Relation) -> Iterator[Dependents]:
    oid = blue.oid
    keys = catalog.foreign_keys([oid])
    over = catalog.views_over([oid])
    yield from named(
        blue.name,
        {
            "owner": [blue.owner],
            "columns": map(_column, catalog.columns(oid)),
            "options": _options(blue),
            "sequences": [f"{sequence.name} ({sequence.column})" for sequence in catalog.sequences(oid)],
            "indexes": [index.name for index in catalog.indexes(oid) if not index.constraint],
            "constraints": [
                *(index.name for index in catalog.indexes(oid) if index.constraint),
                *(constraint.name for constraint in catalog.constraints(oid)),
            ],
            "foreign keys": [f"{key.name} to {key.parent}{_deferrable(key)}" for key in keys if key.child_oid == oid],
            "foreign keys of others": [f"{key.name} of {key.child}{_deferrable(key)}" for key in keys if key.child_oid != oid],
            "statistics": [statistics.name for statistics in catalog.statistics(oid)],
            "triggers": [trigger.name for trigger in catalog.triggers(oid)],
            "rules": [rule.name for rule in catalog.rules(oid)],
            "policies": [policy.name for policy in catalog.policies(oid)],
            "publications": [publication.name for publication in catalog.publications(oid)],
            "views": [view.relation.full_name for view in over if view.relation.kind != MATERIALIZED_VIEW],
            "materialized views": [view.relation.full_name for view in over if view.relation.kind == MATERIALIZED_VIEW],
            "rules of others": [f"{rule.name} of {rule.relation}" for rule in catalog.rules_elsewhere([oid])],
            "policies of others": [f"{policy.name} of {policy.relation}" for policy in catalog.policies_elsewhere([oid])],
            "privileges": _grants(grant for grant in catalog.grants(oid) if grant.grantee != blue.owner),
            "comments": _comments(catalog, blue),
        },
    )


def _column(column: Column) -> str:
    notes = [
        *(["identity"] if column.identity else []),
        *(["generated"] if column.generated else []),
        *([f"statistics {column.statistics}"] if column.statistics is not None else []),
    ]
    return f"{column.name} {column.type}" + (f" ({', '.join(notes)})" if notes else "")


def _options(blue: Relation) -> Iterator[str]:
    yield from blue.options
    yield from (f"toast.{option}" for option in blue.toast_options)
    flags = {
        "UNLOGGED": blue.persistence == "u",
        "ROW LEVEL SECURITY": blue.row_security,
        "FORCE ROW LEVEL SECURITY": blue.force_row_security,
        "REPLICA IDENTITY FULL": blue.replica_identity == "f",
        "REPLICA IDENTITY NOTHING": blue.replica_identity == "n",
        "REPLICA IDENTITY USING INDEX": blue.replica_identity == "i",
        f"TABLESPACE {blue.tablespace}": blue.tablespace is not None,
    }
    yield from (words for words, flag in flags.items() if flag)


def _deferrable(key: ForeignKey) -> str:
    return " (deferrable)" if " DEFERRABLE" in key.definition else ""


def _grants(grants: Iterable[Grant]) -> Iterator[str]:
    by_grantee: dict[str, list[str]] = {}
    for grant in grants:
        privilege = f"{grant.privilege} ({grant.column})" if grant.column else grant.privilege
        by_grantee.setdefault(grant.grantee or "PUBLIC", []).append(privilege)
    yield from (f"{' '.join(privileges)} to {grantee}" for grantee, privileges in by_grantee.items())


def _comments(catalog: Catalog, blue: Relation) -> Iterator[str]:
    if blue.comment:
        yield f"on {blue.name}"
    named_objects = (
        catalog.columns(blue.oid),
        catalog.constraints(blue.oid),
        catalog.indexes(blue.oid),
        catalog.statistics(blue.oid),
        catalog.sequences(blue.oid),
        catalog.triggers(blue.oid),
        catalog.rules(blue.oid),
        catalog.policies(blue.oid),
    )
    yield from (f"on {described.name}" for objects in named_objects for described in objects if described.comment)
