"""Another structure for the rebuilt tables, as the spec names it: the statements that make it, and how it differs from today's.

Tables of the new structure are made once, empty and apart, to see what the database makes of them; the live ones are not touched.
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
    """What makes the tables of the new structure under their live names, in an order that works.

    :param tables: those of the run; metadata may describe others, too
    :raises PlanError: nothing of it concerns these tables, or a statement makes something else
    """
    source = load_structure(section)
    if isinstance(source, str):
        return _from_text(source, dialect)
    wanted = [table for table in source.sorted_tables if table.name in tables]
    if not wanted:
        raise PlanError(f"structure.metadata: it has none of the tables {', '.join(sorted(tables))}; correct it, or take it out")
    doubled = dialect.paramstyle in ("format", "pyformat")
    # Whatever schema they are said to be in, they are made where they are tried.
    nowhere = dict.fromkeys({table.schema for table in source.tables.values()} - {None})
    translated: dict[str, Any] = {"schema_translate_map": nowhere, "render_schema_translate": True} if nowhere else {}
    made = [
        str(each.compile(None, dialect=dialect, **translated)).strip() for table in wanted for each in _made_of(table, dialect)
    ]
    return [each.replace("%%", "%") for each in made] if doubled else made


def _made_of(table: sa.Table, dialect: sa.Dialect) -> Iterator[sa.schema.ExecutableDDLElement]:
    yield sa.schema.CreateTable(table)
    yield from map(sa.schema.CreateIndex, sorted(table.indexes, key=lambda index: str(index.name)))
    yield from (sa.schema.AddConstraint(key) for key in table.foreign_key_constraints if key.use_alter)
    if dialect.supports_comments and not dialect.inline_comments:
        if table.comment:
            yield sa.schema.SetTableComment(table)
        yield from (sa.schema.SetColumnComment(column) for column in table.columns if column.comment)


def _from_text(text: str, dialect: sa.Dialect) -> list[str]:
    texts = _ESCAPED if dialect.name in ("mysql", "mariadb") else _TEXTS
    pieces = re.compile(rf"(?P<comment>{_COMMENT})|{texts}|(?P<end>;)|.", re.DOTALL)
    found = [""]
    for piece in pieces.finditer(text):
        if piece["end"]:
            found.append("")
        elif not piece["comment"]:
            found[-1] += piece[0]
    made = [each.strip() for each in found if each.strip()]
    for each in made:
        if not _ALLOWED.match(each):
            raise PlanError(
                f"structure.ddl: {each.splitlines()[0][:80]!r} does not make a table or what belongs to one; a rebuild makes nothing else. "
                "Do it by itself, before the rebuild"
            )
    return made


# What differs ---------------------------------------------------------------------------------------------------


def difference(live: sa.Connection, schema: str | None, trial: SchemaTrial, tables: Sequence[str]) -> list[str]:
    """What changes for these tables, a line each: Alembic's comparison, and the keys and checks that it does not look at."""
    with warnings.catch_warnings():
        # Of what reflection does not know; whether it is carried over is decided by the databases' own words.
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
            # Only for the comparison, which wants to know of each parent that it is there.
            schema_of, _, name_of = to.rpartition(".")
            sa.Table(name_of, target, sa.Column(column), schema=schema_of or None)

    def ours(name: str | None, kind: str, parents: Any) -> bool:
        return (name == named) if kind == "schema" else (name in tables or kind != "table")

    def considered(_: Any, name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:
        return kind != "table" or name in tables

    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_schemas": named is not None,
        "include_name": ours,
        "include_object": considered,
    }
    found = compare_metadata(MigrationContext.configure(live, opts=options), target)
    same = {each for table in tables for each in _indexes(live, schema, table) & _indexes(aside, place, table)}
    # Expressions are written in many ways; Alembic takes some that are equal for different.
    real = [
        each for each in found if not (each[0] in ("add_index", "remove_index") and _index(each[1]) in {key for key, _ in same})
    ]
    lines = [line for change in real for line in _lines(change)]
    lines += [line for table in tables for line in _unseen(live, schema, aside, place, table)]
    untold = [table for table in tables if not any(line.startswith(f"{table}: ") for line in lines)]
    return lines + [f"{table}: options, or what else only the database's own words tell" for table in untold]


def _without_defaults_for_identities(live: sa.Connection, schema: str | None, table: sa.Table) -> None:
    """Alembic cannot compare the two; so that it says of such a column that its identity goes."""
    for column in sa.inspect(live).get_columns(table.name, schema=schema):
        new = table.columns.get(column["name"])
        if column.get("identity") and new is not None and not isinstance(new.server_default, sa.Identity):
            new.server_default = None


def _moved_to(trial: SchemaTrial, named: str | None) -> Any:
    def moved(_table: sa.Table, _to: str | None, _key: sa.ForeignKeyConstraint, referred: str | None) -> Any:
        if referred == trial.schema:
            return named or sa.schema.BLANK_SCHEMA
        return referred.removeprefix(trial.elsewhere) if referred else referred

    return moved


def _indexes(connection: sa.Connection, schema: str | None, table: str) -> set[tuple[tuple[str, str], str]]:
    """Table and name of each index, and all that is known of it."""
    return {((table, str(each["name"])), repr(each)) for each in sa.inspect(connection).get_indexes(table, schema=schema)}


def _index(index: Any) -> tuple[str, str]:
    return index.table.name, index.name


def _lines(change: Any) -> Iterator[str]:
    if isinstance(change, list):
        for each in change:
            yield from _lines(each)
        return
    what, *given = change
    if what.startswith("modify_"):
        _, table, column, _, old, new = given
        yield f"{table}: column {column}: {what.removeprefix('modify_')} {_said(old)} -> {_said(new)}"
    elif what in ("add_column", "remove_column"):
        _, table, column = given
        empty = "" if column.nullable else " NOT NULL"
        default = f" DEFAULT {_said(column.server_default)}" if column.server_default is not None else ""
        yield f"{table}: {what.replace('_', ' ')} {column.name} {column.type}{empty}{default}"
    else:
        (item, *_) = given
        table = getattr(getattr(item, "table", item), "name", item)
        yield f"{table}: {what.replace('_', ' ')} {getattr(item, 'name', None) or ''} {_columns(item)}".rstrip()


def _said(value: Any) -> str:
    if isinstance(value, sa.Identity):
        return "identity"
    argument = getattr(value, "arg", value)
    return str(getattr(argument, "text", argument))


def _columns(item: Any) -> str:
    columns: Iterable[Any] = getattr(item, "expressions", ()) or getattr(item, "columns", ())
    found = ", ".join(str(getattr(each, "name", each)) for each in columns)
    return f"({found})" if found else ""


def _unseen(live: sa.Connection, schema: str | None, aside: sa.Connection, place: str | None, table: str) -> Iterator[str]:
    before, after = _keys(live, schema, table), _keys(aside, place, table)
    yield from (f"{table}: remove {each}" for each in sorted(before - after))
    yield from (f"{table}: add {each}" for each in sorted(after - before))
    order = [
        [each["name"] for each in sa.inspect(at).get_columns(table, schema=of)] for at, of in ((live, schema), (aside, place))
    ]
    common = [[name for name in names if name in order[0] and name in order[1]] for names in order]
    if common[0] != common[1]:
        yield f"{table}: the columns are in another order: {', '.join(order[1])}"


def _keys(connection: sa.Connection, schema: str | None, table: str) -> set[str]:
    inspector = sa.inspect(connection)
    primary = inspector.get_pk_constraint(table, schema=schema)
    checks = inspector.get_check_constraints(table, schema=schema)
    key = f"primary key {primary['name'] or ''} ({', '.join(primary['constrained_columns'])})"
    return {key} | {f"check {each['name'] or ''} ({each['sqltext']})" for each in checks}
