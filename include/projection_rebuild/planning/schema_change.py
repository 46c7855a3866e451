"""Another structure for the rebuilt tables: the statements that create it, and its differences from today's structure.

The differences come from the database: the trial (``schema_trial``) creates empty tables of the new structure in a
place of their own. It does not touch the live tables.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from projection_rebuild.dialects.base import SchemaTrial
from projection_rebuild.errors import PlanError
from projection_rebuild.spec.structure import StructureSection, load_structure

_ALLOWED = re.compile(
    r"(CREATE\s+(UNLOGGED\s+)?TABLE|CREATE\s+(UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)?INDEX|ALTER\s+TABLE|ALTER\s+INDEX|COMMENT\s+ON|"
    r"CREATE\s+STATISTICS|ALTER\s+STATISTICS)\b",
    re.IGNORECASE,
)
_COMMENT = r"--[^\n]*|/\*.*?\*/"
_TEXTS = r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$"""
_ESCAPED = r"""'(?:[^'\\]|''|\\.)*'|"(?:[^"\\]|""|\\.)*"|`(?:[^`]|``)*`"""


def statements(section: StructureSection, tables: Collection[str], dialect: sa.Dialect) -> list[str]:
    """The statements that create the tables of the new structure under their live names, in an order that works.

    :param tables: the names of the run's tables; metadata may describe others, too
    :raises PlanError: the metadata has none of these tables, or a statement creates something other than a table or a
        part of one
    """
    source = load_structure(section)
    if isinstance(source, str):
        return _from_text(source, dialect)
    wanted = [table for table in source.sorted_tables if table.name in tables]
    if not wanted:
        raise PlanError(f"structure.metadata: it has none of the tables {', '.join(sorted(tables))}; correct it, or take it out")
    doubled = dialect.paramstyle in ("format", "pyformat")
    # The trial creates the tables in its own place, whatever schema the metadata names.
    nowhere = dict.fromkeys({table.schema for table in source.tables.values()} - {None})
    translated: dict[str, Any] = {"schema_translate_map": nowhere, "render_schema_translate": True} if nowhere else {}
    texts = [
        str(element.compile(None, dialect=dialect, **translated)).strip()
        for table in wanted
        for element in _elements(table, dialect)
    ]
    return [text.replace("%%", "%") for text in texts] if doubled else texts


def _elements(table: sa.Table, dialect: sa.Dialect) -> Iterator[sa.schema.ExecutableDDLElement]:
    """The DDL of a table, its indexes, late foreign keys and comments."""
    yield sa.schema.CreateTable(table)
    yield from map(sa.schema.CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))
    yield from (sa.schema.AddConstraint(key) for key in table.foreign_key_constraints if key.use_alter)
    if dialect.supports_comments and not dialect.inline_comments:
        if table.comment:
            yield sa.schema.SetTableComment(table)
        yield from (sa.schema.SetColumnComment(column) for column in table.columns if column.comment)


def _from_text(text: str, dialect: sa.Dialect) -> list[str]:
    """Splits a file into its statements, without comments.

    :raises PlanError: a statement creates something other than a table or a part of one
    """
    texts = _ESCAPED if dialect.name in ("mysql", "mariadb") else _TEXTS
    pieces = re.compile(rf"(?P<comment>{_COMMENT})|{texts}|(?P<end>;)|.", re.DOTALL)
    parts = [""]
    for piece in pieces.finditer(text):
        if piece["end"]:
            parts.append("")
        elif not piece["comment"]:
            parts[-1] += piece[0]
    in_order = [part.strip() for part in parts if part.strip()]
    for statement in in_order:
        if not _ALLOWED.match(statement):
            raise PlanError(
                f"structure.ddl: {statement.splitlines()[0][:80]!r} does not make a table or what belongs to one; a rebuild makes nothing "
                "else. Do it by itself, before the rebuild"
            )
    return in_order


# What differs ---------------------------------------------------------------------------------------------------


def difference(live: sa.Connection, schema: str | None, trial: SchemaTrial, tables: Sequence[str]) -> list[str]:
    """The changes to these tables, a line each: those that Alembic reports, and those of keys and checks.

    :param live: a connection to the live tables
    :param schema: their schema
    :param trial: the tables of the new structure
    """
    with warnings.catch_warnings():
        # Reflection warns of objects that it does not know. The engine carries objects over by the database's own
        # definitions, so it does not need them here.
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        return _difference(live, schema, trial, tables)


def _difference(live: sa.Connection, schema: str | None, trial: SchemaTrial, tables: Sequence[str]) -> list[str]:
    aside, place = trial.connection, trial.schema
    default = sa.inspect(live).default_schema_name
    named = None if schema in (None, default) else schema
    target = sa.MetaData()
    reflected = sa.MetaData()
    reflected.reflect(aside, schema=place, only=lambda name, _: name in tables, resolve_fks=False)
    for table in reflected.tables.values():
        copied = table.to_metadata(target, schema=named, referred_schema_fn=_moved_to(trial, named))  # type: ignore[arg-type]
        _without_defaults_for_identities(live, schema, copied)
    for key in [key for table in target.tables.values() for key in table.foreign_keys]:
        to, _, column = key.target_fullname.rpartition(".")
        if to not in target.tables:
            # The comparison needs each parent table in the metadata.
            schema_of, _, name_of = to.rpartition(".")
            sa.Table(name_of, target, sa.Column(column), schema=schema_of or None)

    def is_name_compared(name: str | None, kind: str, parents: Any) -> bool:
        return (name == named) if kind == "schema" else (name in tables or kind != "table")

    def is_object_compared(_: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
        return kind != "table" or name in tables

    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_schemas": named is not None,
        "include_name": is_name_compared,
        "include_object": is_object_compared,
    }
    changes = compare_metadata(MigrationContext.configure(live, opts=options), target)
    unchanged = {key for table in tables for key, _ in _indexes(live, schema, table) & _indexes(aside, place, table)}
    # The same expression can be written in several ways, which Alembic reports as a change of the index.
    real = [
        change for change in changes if not (change[0] in ("add_index", "remove_index") and _index_key(change[1]) in unchanged)
    ]
    lines = [line for change in real for line in _lines(change)]
    lines += [line for table in tables for line in _not_by_alembic(live, schema, aside, place, table)]
    without_line = [table for table in tables if not any(line.startswith(f"{table}: ") for line in lines)]
    return lines + [f"{table}: options, or something else that only the database's definition shows" for table in without_line]


def _without_defaults_for_identities(live: sa.Connection, schema: str | None, table: sa.Table) -> None:
    """Removes the new default of each column that is an identity today.

    Alembic cannot compare an identity with a default. Without the default it reports that the identity is removed.
    """
    for column in sa.inspect(live).get_columns(table.name, schema=schema):
        new = table.columns.get(column["name"])
        if column.get("identity") and new is not None and not isinstance(new.server_default, sa.Identity):
            new.server_default = None


def _moved_to(trial: SchemaTrial, named: str | None) -> Any:
    """A function that translates the schemas to which foreign keys refer from the trial's place to the live one."""

    def moved(_table: sa.Table, _to: str | None, _key: sa.ForeignKeyConstraint, referred: str | None) -> Any:
        if referred == trial.schema:
            return named or sa.schema.BLANK_SCHEMA
        return referred.removeprefix(trial.elsewhere) if referred else referred

    return moved


def _indexes(connection: sa.Connection, schema: str | None, table: str) -> set[tuple[tuple[str, str], str]]:
    """For each index: its table and name, and its reflected definition as text."""
    return {((table, str(index["name"])), repr(index)) for index in sa.inspect(connection).get_indexes(table, schema=schema)}


def _index_key(index: Any) -> tuple[str, str]:
    return index.table.name, index.name


def _lines(change: Any) -> Iterator[str]:
    """Alembic's change, or list of changes, in words: a line each."""
    if isinstance(change, list):
        for part in change:
            yield from _lines(part)
        return
    what, *given = change
    if what.startswith("modify_"):
        _, table, column, _, old, new = given
        yield f"{table}: column {column}: {what.removeprefix('modify_')} {_in_words(old)} -> {_in_words(new)}"
    elif what in ("add_column", "remove_column"):
        _, table, column = given
        empty = "" if column.nullable else " NOT NULL"
        default = f" DEFAULT {_in_words(column.server_default)}" if column.server_default is not None else ""
        yield f"{table}: {what.replace('_', ' ')} {column.name} {column.type}{empty}{default}"
    else:
        (item, *_) = given
        table = getattr(getattr(item, "table", item), "name", item)
        yield f"{table}: {what.replace('_', ' ')} {getattr(item, 'name', None) or ''} {_columns(item)}".rstrip()


def _in_words(value: Any) -> str:
    if isinstance(value, sa.Identity):
        return "identity"
    argument = getattr(value, "arg", value)
    return str(getattr(argument, "text", argument))


def _columns(item: Any) -> str:
    columns: Iterable[Any] = getattr(item, "expressions", ()) or getattr(item, "columns", ())
    names = ", ".join(str(getattr(column, "name", column)) for column in columns)
    return f"({names})" if names else ""


def _not_by_alembic(
    live: sa.Connection, schema: str | None, aside: sa.Connection, place: str | None, table: str
) -> Iterator[str]:
    """The changes that Alembic does not report: the primary key, checks, and the order of the columns."""
    before, after = _keys(live, schema, table), _keys(aside, place, table)
    yield from (f"{table}: remove {key}" for key in sorted(before - after))
    yield from (f"{table}: add {key}" for key in sorted(after - before))
    order = [
        [column["name"] for column in sa.inspect(connection).get_columns(table, schema=of)]
        for connection, of in ((live, schema), (aside, place))
    ]
    common = [[name for name in names if name in order[0] and name in order[1]] for names in order]
    if common[0] != common[1]:
        yield f"{table}: the columns are in another order: {', '.join(order[1])}"


def _keys(connection: sa.Connection, schema: str | None, table: str) -> set[str]:
    """The primary key and the checks of a table, each as a text."""
    inspector = sa.inspect(connection)
    primary = inspector.get_pk_constraint(table, schema=schema)
    checks = inspector.get_check_constraints(table, schema=schema)
    key = f"primary key {primary['name'] or ''} ({', '.join(primary['constrained_columns'])})"
    return {key} | {f"check {constraint['name'] or ''} ({constraint['sqltext']})" for constraint in checks}
