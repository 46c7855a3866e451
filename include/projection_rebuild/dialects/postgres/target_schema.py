"""Another structure on PostgreSQL: made in a schema of its own, within a transaction, to be looked at and to become green from there."""

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
"""The schema that holds the tables for a moment; it is gone with its transaction."""

ELSEWHERE = PLACE + "_"
"""Begins the names of the schemas that hold, for that moment, what stands for the parents in other schemas."""

_NAME = r'"(?:[^"]|"")++"|[a-z_]\w*+'
_REFERENCES = re.compile(rf"\bREFERENCES\s+({_NAME})(?!\s*\.)", re.IGNORECASE)
# Or a text, or a comment.
_REFERENCES_ELSEWHERE = re.compile(
    rf"""'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|\bREFERENCES\s+(?P<schema>{_NAME})\s*\.\s*(?P<table>{_NAME})""",
    re.IGNORECASE | re.DOTALL,
)

# A foreign key's parent is locked by SHARE ROW EXCLUSIVE, and is not changed by it.
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
    """What a target schema of PostgreSQL's holds: how the table is made, and what hangs on it, under live names.

    :param statements: what makes it, and other tables with it
    :param parents: the live tables that it refers to
    :param sequences: those that its columns own; of a serial column that keeps the live one's sequence, none
    :param kept: serial columns that go on with the sequence of the live table, with its schema and name
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
        """For the plan."""
        return json.dumps(asdict(self))

    @classmethod
    @cache
    def of(cls, text: str) -> ParsedSchema:
        """From the plan."""
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
    """The structure that a table of the run is given; None: it keeps that of blue."""
    return ParsedSchema.of(names.target_schema.definition) if names.target_schema else None


# Looking --------------------------------------------------------------------------------------------------------


@contextmanager
def made_apart(execute: Callable[[str], Any], statements: Sequence[str]) -> Iterator[None]:
    """Executes statements in a transaction that is always rolled back.

    :param execute: executes one as it stands
    """
    execute("BEGIN")
    try:
        for statement in statements:
            execute(statement)
        yield
    finally:
        execute("ROLLBACK")


def preparing(catalog: Catalog, schema: str | None, statements: Sequence[str]) -> list[str]:
    """What goes before and with the statements, so that they mean tables of their own."""
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
    """Looks at what the statements have locked and made beside the tables apart; all of it is rolled back.

    :raises PlanError: they change something that is live, and would do so in earnest when green is made
    """
    if touched := [name for (name,) in catalog.rows(_TOUCHED, PLACE, ELSEWHERE, PLACE, ELSEWHERE)]:
        raise PlanError(
            f"structure.ddl: it changes {', '.join(touched)}, which is none of its own tables; let it make each table that it speaks of, under "
            "its live name and without a schema"
        )


def search_path(catalog: Catalog, schema: str | None) -> str:
    """Where statements find tables that are made apart, and then what is live."""
    path = catalog.session_path
    return ", ".join([PLACE, *([ident(schema)] if schema else []), *([path] if path else [])])


def _parents_elsewhere(catalog: Catalog, statements: Sequence[str]) -> list[tuple[str, str]]:
    """Live tables that foreign keys name with their schema, as far as we may make a table like them."""
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
    """A statement whose foreign keys to tables of other schemas point to those that stand for them."""

    def stand_in(match: re.Match[str]) -> str:
        if not match["schema"] or (_plain(match["schema"]), _plain(match["table"])) not in parents_beside:
            return match[0]
        return f"REFERENCES {full_name(ELSEWHERE + _plain(match['schema']), _plain(match['table']))}"

    return _REFERENCES_ELSEWHERE.sub(stand_in, statement)


def _plain(name: str) -> str:
    """A name as the server takes it."""
    return name[1:-1].replace('""', '"') if name[0] == '"' else name.lower()


def parents(catalog: Catalog, schema: str | None, statements: Sequence[str]) -> list[str]:
    """Live tables that foreign keys name without a schema; they get stand-ins, so that nobody's table is locked."""
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
    """The structure of a table that has been made apart; None: there is none of its name."""
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
    """Whether a table that is made apart is like the live one, in all that a structure speaks of."""
    table, blue = catalog.find(PLACE, names.blue), catalog.find(names.schema, names.blue)
    if table is None or blue is None:
        return False
    return _told(catalog, table, PLACE) == _told(catalog, blue, names.schema or "")


def _told(catalog: Catalog, table: Relation, schema: str) -> list[Any]:
    """All that a structure speaks of, without OIDs, owners and the schema that the table is in."""

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
    """A foreign key of a table that is made apart, as that of the live one."""
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


# Making green ---------------------------------------------------------------------------------------------------


def creating(catalog: Catalog, names: TableSet, structure: ParsedSchema, green_name: Callable[[str], str]) -> str:
    """One statement that makes the tables apart, and takes this one out of there, under the names of green's."""
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
        # As with any green table, these are built when it is filled.
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
