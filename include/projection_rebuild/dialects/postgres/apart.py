"""Tables apart from the live ones on PostgreSQL: trial tables of a new structure, and scratch tables in a schema of their own.

A scratch table has the columns, defaults, checks and unique indexes of its live table, but no object of the live one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import sqlalchemy as sa

from projection_rebuild.dialects.base import SchemaTrial, Scratch, TablesApart
from projection_rebuild.dialects.postgres import target_schema
from projection_rebuild.dialects.postgres.base import PostgresBase
from projection_rebuild.dialects.postgres.catalog import MAX_IDENTIFIER, Catalog, Column, Relation, full_name, ident, literal
from projection_rebuild.dialects.postgres.cutover import Switch
from projection_rebuild.dialects.postgres.schema_trial import DependentsTrial
from projection_rebuild.errors import CloneError
from projection_rebuild.model.names import TableSet, TargetSchema, derived


class PostgresTablesApart(PostgresBase, TablesApart):
    """See :class:`TablesApart`."""

    @contextmanager
    def try_schema(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[SchemaTrial]:
        schema = tables[0].schema

        def execute(statement: str) -> None:
            self._execute_all(connection, [statement])

        with Catalog.of(connection) as catalog:
            path, preparing = catalog.session_path, target_schema.preparing(catalog, schema, statements)
        with target_schema.rolled_back(execute, preparing):
            with Catalog.of(connection) as catalog:
                target_schema.refuse_touched(catalog)
                schemas = {table.blue: target_schema.read(catalog, table, statements) for table in tables}
                definitions = {name: parsed.as_text() for name, parsed in schemas.items() if parsed}
                formed = [
                    replace(table, target_schema=TargetSchema(definitions[table.blue])) if table.blue in definitions else table
                    for table in tables
                ]
                dependents = DependentsTrial(catalog, execute, Switch(catalog, formed), schema, views)
                unchanged = {table.blue for table in formed if table.target_schema and target_schema.unchanged(catalog, table)}
                refusals = list(dependents.refusals())
            # From here, names without a schema mean the live tables again.
            self._execute(connection, "SELECT pg_catalog.set_config('search_path', %s, true)", path)
            yield SchemaTrial(
                connection, target_schema.PLACE, definitions, unchanged, dependents.new_queries, refusals, target_schema.ELSEWHERE
            )

    def enter(self, connection: sa.Connection, scratch: Scratch) -> None:
        self._execute(connection, f"SET search_path = {self.quote(scratch.schema or 'public')}")

    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        with Catalog.of(connection) as catalog:
            blue = catalog.find(table.schema, table.blue)
            if blue is None:
                raise CloneError(f"there is no table {table.blue}")
            return list(scratch_table(catalog, blue, scratch.schema))


def scratch_table(catalog: Catalog, blue: Relation, schema: str | None) -> Iterator[str]:
    """Statements that create a scratch table with the name of its live table.

    :param blue: the live table
    :param schema: the schema of the scratch table
    """
    new_table, clauses = full_name(schema, blue.name), []
    for column in catalog.columns(blue.oid):
        counter = None
        if column.default is not None and not column.generated and "nextval(" in column.default:
            # A sequence of its own, so that the live one does not advance.
            counter = full_name(schema, derived(f"{blue.name}_{column.name}", "_seq", MAX_IDENTIFIER))
            yield f"CREATE SEQUENCE {counter}"
        clauses.append(_clause(column, counter))
    for check in catalog.constraints(blue.oid):
        if check.kind == "c":
            clauses.append(f"CONSTRAINT {ident(check.name)} {check.definition.removesuffix(' NOT VALID')}")
    # UNLOGGED: the rows are worthless after a crash of the server.
    yield f"CREATE UNLOGGED TABLE {new_table} ({', '.join(clauses)})"
    for index in catalog.indexes(blue.oid):
        if index.constraint:
            yield f"ALTER TABLE {new_table} ADD CONSTRAINT {ident(index.name)} {index.constraint}"
        elif index.unique:
            yield f"CREATE UNIQUE INDEX {ident(index.name)} ON {new_table} USING {index.definition}"


def _clause(column: Column, counter: str | None) -> str:
    """A column's clause in CREATE TABLE.

    :param counter: the sequence that its default uses; None if it has another default, or none
    """
    parts = [ident(column.name), column.type]
    if column.collation:
        parts.append(f"COLLATE {column.collation}")
    if column.identity:
        parts.append(f"GENERATED {'ALWAYS' if column.identity == 'a' else 'BY DEFAULT'} AS IDENTITY")
    elif column.generated:
        parts.append(f"GENERATED ALWAYS AS ({column.default}) {'VIRTUAL' if column.generated == 'v' else 'STORED'}")
    elif counter:
        parts.append(f"DEFAULT pg_catalog.nextval({literal(counter)}::pg_catalog.regclass)")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    return " ".join([*parts, *(["NOT NULL"] if column.not_null else [])])
