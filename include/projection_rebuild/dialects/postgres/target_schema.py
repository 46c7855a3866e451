"""A target schema on PostgreSQL: trial tables in a schema of their own, within a transaction, to read their structure or make them green."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from projection_rebuild.dialects.postgres.catalog import (
    MAX_IDENTIFIER,
    PARTITIONED,
    TABLE,
    Catalog,
    ForeignKey,
    Index,
    OwnedSequence,
    Relation,
    Statistics,
    block,
    full_name,
    ident,
    literal,
)
from projection_rebuild.errors import PlanError
from projection_rebuild.model.names import TableSet

PLACE = "projection_rebuild_structure"
"""The schema of the trial tables. It exists only within its transaction."""

ELSEWHERE = PLACE + "_"
"""The prefix of further trial schemas, with stand-ins for parents in other schemas."""

_NAME = r'"(?:[^"]|"")++"|[a-z_]\w*+'
_REFERENCES = re.compile(rf"\bREFERENCES\s+({_NAME})(?!\s*\.)", re.IGNORECASE)
# The pattern also matches texts and comments, so that a REFERENCES within one is skipped.
_REFERENCES_ELSEWHERE = re.compile(
    rf"""'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|\bREFERENCES\s+(?P<schema>{_NAME})\s*\.\s*(?P<table>{_NAME})""",
    re.IGNORECASE | re.DOTALL,
)

# Without SHARE ROW EXCLUSIVE, the lock on a foreign key's parent: the key does not change the parent.
_TOUCHED = """
SELECT DISTINCT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_locks l
  JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
   AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ExclusiveLock', 'AccessExclusiveLock')
   AND n.nspname NOT IN (%s, 'pg_catalog', 'pg_toast') AND NOT pg_catalog.starts_with(n.nspname, %s)
UNION
SELECT k.conrelid::pg_catalog.regclass::text FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE k.xmin = pg_catalog.pg_current_xact_id()::pg_catalog.xid AND n.nspname <> %s
   AND NOT pg_catalog.starts_with(n.nspname, %s)
 ORDER BY 1"""


@dataclass(frozen=True)
class ParsedSchema:
    """A target schema on PostgreSQL: the statements that create the table, and its objects under live names.

    :param statements: the DDL that creates it, and perhaps other tables with it
    :param parents: the live tables that its foreign keys refer to
    :param sequences: the sequences of its columns, without those in ``kept``
    :param kept: (column, schema, sequence) of the serial columns that continue with the live table's sequence
    """

    statements: tuple[str, ...]
    parents: tuple[str, ...]
    columns: tuple[str, ...]
    indexes: tuple[Index, ...]
    statistics: tuple[Statistics, ...]
    sequences: tuple[OwnedSequence, ...]
    foreign_keys: tuple[ForeignKey, ...]
    kept: tuple[tuple[str, str, str], ...]

    def as_text(self) -> str:
        """The text form, which the plan stores."""
        return json.dumps(asdict(self))

    @classmethod
    @cache
    def of(cls, text: str) -> ParsedSchema:
        """Reads the text form."""
        values = _tuples(json.loads(text))
        kinds: dict[str, Any] = {
            "indexes": Index,
            "statistics": Statistics,
            "sequences": OwnedSequence,
            "foreign_keys": ForeignKey,
        }
        return cls(
            **{
                name: tuple(kinds[name](**record) for record in value) if name in kinds else value
                for name, value in values.items()
            }
        )


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {name: _tuples(item) for name, item in value.items()} if isinstance(value, dict) else value


def parsed_schema(names: TableSet) -> ParsedSchema | None:
    """The structure that a table of the run gets; None if it keeps blue's."""
    return ParsedSchema.of(names.target_schema.definition) if names.target_schema else None


# Reading --------------------------------------------------------------------------------------------------------


@contextmanager
def rolled_back(execute: Callable[[str], Any], statements: Sequence[str]) -> Iterator[None]:
    """Executes statements in a transaction, and rolls it back at the end of the context.

    :param execute: executes a statement unchanged
    """
    execute("BEGIN")
    try:
        for statement in statements:
            execute(statement)
        yield
    finally:
        execute("ROLLBACK")


def preparing(catalog: Catalog, schema: str | None, statements: Sequence[str]) -> list[str]:
    """The statements with those that must precede them, so that they create trial tables and touch no live ones."""
    parents_beside = _parents_elsewhere(catalog, statements)
    return [
        "SET LOCAL lock_timeout = 500",
        f"CREATE SCHEMA {PLACE}",
        *(f"CREATE SCHEMA {ident(schema_name)}" for schema_name in _schemas_elsewhere(parents_beside)),
        *(_stub(PLACE, schema, name) for name in parents(catalog, schema, statements)),
        *(_stub(ELSEWHERE + schema_of, schema_of, name) for schema_of, name in parents_beside),
        f"SET LOCAL search_path = {search_path(catalog, schema)}",
        *(_referring(statement, parents_beside) for statement in statements),
    ]


def refuse_touched(catalog: Catalog) -> None:
    """Checks what the statements locked and created outside the trial schemas. The transaction rolls it back.

    :raises PlanError: they change a live object, and would really change it when they create green
    """
    if touched := [name for (name,) in catalog.rows(_TOUCHED, PLACE, ELSEWHERE, PLACE, ELSEWHERE)]:
        raise PlanError(
            f"structure.ddl: it changes {', '.join(touched)}, which is not one of its own tables; let it create each table that it names, "
            "under the live name and without a schema"
        )


def search_path(catalog: Catalog, schema: str | None) -> str:
    """The search_path that finds trial tables first, and then live ones."""
    path = catalog.session_path
    return ", ".join([PLACE, *([ident(schema)] if schema else []), *([path] if path else [])])


def _parents_elsewhere(catalog: Catalog, statements: Sequence[str]) -> list[tuple[str, str]]:
    """The live tables that foreign keys name with a schema, as (schema, name), if the engine's role may copy their structure."""
    named = {
        (_plain(match["schema"]), _plain(match["table"]))
        for statement in statements
        for match in _REFERENCES_ELSEWHERE.finditer(statement)
        if match["schema"]
    }
    relations = [
        (parent, catalog.find(*parent)) for parent in sorted(named) if len((ELSEWHERE + parent[0]).encode()) <= MAX_IDENTIFIER
    ]
    return [
        parent
        for parent, relation in relations
        if relation and relation.kind in (TABLE, PARTITIONED) and catalog.may_select(relation.oid)
    ]


def _schemas_elsewhere(parents_beside: list[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(ELSEWHERE + schema for schema, _ in parents_beside))


def _referring(statement: str, parents_beside: list[tuple[str, str]]) -> str:
    """The statement with stand-ins as parents of foreign keys to tables in other schemas."""

    def stand_in(match: re.Match[str]) -> str:
        if not match["schema"] or (_plain(match["schema"]), _plain(match["table"])) not in parents_beside:
            return match[0]
        return f"REFERENCES {full_name(ELSEWHERE + _plain(match['schema']), _plain(match['table']))}"

    return _REFERENCES_ELSEWHERE.sub(stand_in, statement)


def _plain(name: str) -> str:
    """A name without quotes, as the server stores it."""
    return name[1:-1].replace('""', '"') if name[0] == '"' else name.lower()


def parents(catalog: Catalog, schema: str | None, statements: Sequence[str]) -> list[str]:
    """The live tables that foreign keys name without a schema. They get stand-ins, so that no live table is locked."""
    named = {match[1] for statement in statements for match in _REFERENCES.finditer(statement)}
    names = sorted({_plain(parent) for parent in named})
    creating_statements = [statement for statement in statements if re.match(r"CREATE\b.*?\bTABLE\b", statement, re.IGNORECASE)]
    return [
        name
        for name in names
        if catalog.find(schema, name) and not any(_makes(statement, name) for statement in creating_statements)
    ]


def _makes(statement: str, table: str) -> bool:
    match = re.match(r'CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?("(?:[^"]|"")+"|\w+)', statement, re.IGNORECASE)
    return match is not None and _plain(match[1]) == table


def _stub(place: str, schema: str | None, name: str) -> str:
    return f"CREATE TABLE {full_name(place, name)} (LIKE {full_name(schema, name)} INCLUDING INDEXES)"


def read(catalog: Catalog, names: TableSet, statements: Sequence[str]) -> ParsedSchema | None:
    """The structure of a trial table; None if the statements created no table of this name."""
    table = catalog.find(PLACE, names.blue)
    if table is None:
        return None
    blue = catalog.find(names.schema, names.blue)
    serials = {
        (sequence.column, sequence.name): sequence
        for sequence in (catalog.sequences(blue.oid) if blue else [])
        if not sequence.identity
    }
    sequences = catalog.sequences(table.oid)
    going_on = [
        serials[at] for sequence in sequences if (at := (sequence.column, sequence.name)) in serials and not sequence.identity
    ]
    kept = tuple((sequence.column, sequence.schema, sequence.name) for sequence in going_on)
    schema = names.schema or ""
    return ParsedSchema(
        statements=tuple(statements),
        parents=tuple(parents(catalog, names.schema, statements)),
        columns=tuple(column.name for column in catalog.columns(table.oid)),
        indexes=tuple(catalog.indexes(table.oid)),
        statistics=tuple(replace(statistics, schema=schema) for statistics in catalog.statistics(table.oid)),
        sequences=tuple(
            replace(sequence, oid=0, schema=schema)
            for sequence in sequences
            if sequence.column not in {column for column, *_ in kept}
        ),
        foreign_keys=tuple(_live(key, schema) for key in catalog.foreign_keys([table.oid]) if key.child_oid == table.oid),
        kept=kept,
    )


def unchanged(catalog: Catalog, names: TableSet) -> bool:
    """Whether a trial table equals the live one in everything that a structure declares."""
    table, blue = catalog.find(PLACE, names.blue), catalog.find(names.schema, names.blue)
    if table is None or blue is None:
        return False
    return _declared(catalog, table, PLACE) == _declared(catalog, blue, names.schema or "")


def _declared(catalog: Catalog, table: Relation, schema: str) -> list[Any]:
    """Everything that a structure declares, without OIDs, owners and the table's schema."""

    def here(text: str | None) -> str:
        return re.sub(rf'(?<![\w."])(?:{re.escape(schema)}|{re.escape(ident(schema))})\.', "", text or "")

    sequences = [replace(sequence, oid=0, schema="", persistence="") for sequence in catalog.sequences(table.oid)]
    keys = [key for key in catalog.foreign_keys([table.oid]) if key.child_oid == table.oid]
    return [
        replace(table, oid=0, schema="", owner="", row_security=False, force_row_security=False, replica_identity=""),
        [replace(column, default=here(column.default)) for column in catalog.columns(table.oid)],
        [replace(check, definition=here(check.definition)) for check in catalog.constraints(table.oid)],
        [
            replace(index, definition=here(index.definition), replica_identity=False, clustered=False)
            for index in catalog.indexes(table.oid)
        ],
        [replace(statistics, schema="", owner="") for statistics in catalog.statistics(table.oid)],
        sequences,
        [
            (
                key.name,
                here(key.pointing_to(full_name(key.parent_schema.removeprefix(ELSEWHERE), key.parent_name))),
                key.comment,
            )
            for key in keys
        ],
    ]


def _live(key: ForeignKey, schema: str) -> ForeignKey:
    """The foreign key of a trial table, with live names."""
    parent_schema = schema if key.parent_schema == PLACE else key.parent_schema.removeprefix(ELSEWHERE)
    parent = full_name(parent_schema, key.parent_name)
    return replace(
        key,
        definition=key.pointing_to(parent),
        child_oid=0,
        child=full_name(schema, key.child_name),
        child_schema=schema,
        parent_oid=0,
        parent=parent,
        parent_schema=parent_schema,
    )


# Creating green -------------------------------------------------------------------------------------------------


def creating(catalog: Catalog, names: TableSet, structure: ParsedSchema, green_name: Callable[[str], str]) -> str:
    """One statement that creates the trial tables, and moves this one beside blue, under the names of green.

    :param green_name: gives the name of green's object for a live name
    """
    here = full_name(PLACE, names.blue)
    steps = preparing(catalog, names.schema, structure.statements)
    steps.append("SET LOCAL search_path = ''")
    steps += [f"ALTER TABLE {here} DROP CONSTRAINT {ident(key.name)}" for key in structure.foreign_keys]
    for column, schema, name in structure.kept:
        live = literal(full_name(schema, name))
        steps.append(
            f"ALTER TABLE {here} ALTER COLUMN {ident(column)} SET DEFAULT pg_catalog.nextval({live}::pg_catalog.regclass)"
        )
        steps.append(f"DROP SEQUENCE {full_name(PLACE, name)}")
    for index in structure.indexes:
        name = full_name(PLACE, index.name)
        # As with any green table, secondary indexes are built after the replay.
        late = not index.unique and not index.constraint
        steps.append(f"DROP INDEX {name}" if late else f"ALTER INDEX {name} RENAME TO {ident(green_name(index.name))}")
    for statistics in structure.statistics:
        steps.append(f"ALTER STATISTICS {full_name(PLACE, statistics.name)} RENAME TO {ident(green_name(statistics.name))}")
        steps.append(f"ALTER STATISTICS {full_name(PLACE, green_name(statistics.name))} SET SCHEMA {ident(names.schema or '')}")
    for sequence in structure.sequences:
        steps.append(f"ALTER SEQUENCE {full_name(PLACE, sequence.name)} RENAME TO {ident(green_name(sequence.name))}")
    steps += [
        f"ALTER TABLE {here} RENAME TO {ident(names.green)}",
        f"ALTER TABLE {full_name(PLACE, names.green)} SET SCHEMA {ident(names.schema or '')}",
        f"DROP SCHEMA {PLACE} CASCADE",
        *(
            f"DROP SCHEMA {ident(schema)} CASCADE"
            for schema in _schemas_elsewhere(_parents_elsewhere(catalog, structure.statements))
        ),
    ]
    return block(*steps)
