"""An empty table like a live one in another schema, maybe of another database: what rows have to keep, and nothing that belongs to the live one."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.dialects.postgres.catalog import MAX_IDENTIFIER, Catalog, Column, Relation, full_name, ident, literal
from projection_rebuild.model.names import derived


def made_apart(catalog: Catalog, blue: Relation, schema: str | None) -> Iterator[str]:
    """Statements that make it, under the same name.

    :param blue: the live table
    :param schema: where it is made
    """
    made, clauses = full_name(schema, blue.name), []
    for column in catalog.columns(blue.oid):
        counter = None
        if column.default is not None and not column.generated and "nextval(" in column.default:
            # The live sequence must not go on because of us.
            counter = full_name(schema, derived(f"{blue.name}_{column.name}", "_seq", MAX_IDENTIFIER))
            yield f"CREATE SEQUENCE {counter}"
        clauses.append(_clause(column, counter))
    for check in catalog.constraints(blue.oid):
        if check.kind == "c":
            clauses.append(f"CONSTRAINT {ident(check.name)} {check.definition.removesuffix(' NOT VALID')}")
    # Its rows are gone with it, also after a crash of the server.
    yield f"CREATE UNLOGGED TABLE {made} ({', '.join(clauses)})"
    for index in catalog.indexes(blue.oid):
        if index.constraint:
            yield f"ALTER TABLE {made} ADD CONSTRAINT {ident(index.name)} {index.constraint}"
        elif index.unique:
            yield f"CREATE UNIQUE INDEX {ident(index.name)} ON {made} USING {index.definition}"


def _clause(column: Column, counter: str | None) -> str:
    """A column as CREATE TABLE has it.

    :param counter: the sequence that its default counts on; None: it has another default, or none
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
