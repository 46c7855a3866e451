"""A copy of SQLite's schema in memory, with tables of another structure in it, to see what would not work with them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import sqlalchemy as sa

from projection_rebuild.model.findings import Finding, refusal

_ALL = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"


def broken_dependents(
    live: sa.Connection, tables: Collection[str], statements: Sequence[str], views: Mapping[str, str]
) -> Iterator[Finding]:
    """Why views, triggers and foreign keys of others would not work with these tables.

    :param statements: what makes the tables
    :param views: new queries for views
    """
    stored = live.exec_driver_sql(_ALL).all()
    known = {each.name for each in stored if each.type == "view"}
    for name in views.keys() - known:
        yield refusal("structure.views", f"there is no view {name}", "correct its name")
    memory = sa.create_engine("sqlite://")
    with memory.connect() as copy:
        copied = _copy(copy, [each for each in stored if each.tbl_name not in tables], statements, views)
        for name in sorted(known):
            problem = None if name in copied else "its new query cannot be read"
            problem = problem or _problem(copy, f"SELECT * FROM {_quoted(name)} LIMIT 0")
            # What does not work today either is no matter of ours.
            if problem and (name in views or _problem(live, f"SELECT * FROM {_quoted(name)} LIMIT 0") is None):
                reason = f"it would not work with the new structure ({problem})"
                yield refusal(f"the view {name}", reason, "give its new query in structure.views")
        yield from _triggers(live, copy, stored, tables)
        yield from _children(copy, stored, tables)
    memory.dispose()


def _copy(copy: sa.Connection, stored: Sequence[sa.Row], statements: Sequence[str], views: Mapping[str, str]) -> set[str]:  # type: ignore[type-arg]
    for statement in statements:
        copy.exec_driver_sql(statement)
    made = set[str]()
    for each in stored:
        sql = f"CREATE VIEW {_quoted(each.name)} AS {views[each.name]}" if each.name in views else each.sql
        # Virtual tables may need what this process does not have.
        with suppress(sa.exc.DBAPIError):
            copy.exec_driver_sql(sql)
            made.add(each.name)
    return made


def _triggers(
    live: sa.Connection,
    copy: sa.Connection,
    stored: Sequence[sa.Row],  # type: ignore[type-arg]
    tables: Collection[str],
) -> Iterator[Finding]:
    """SQLite reads the body of a trigger when a statement that fires it is prepared."""
    for trigger in (each for each in stored if each.type == "trigger"):
        if trigger.tbl_name in tables:
            problem = _problem(copy, trigger.sql)
            if problem:
                yield _refused(trigger.name, trigger.tbl_name, problem)
                continue
        for firing in _firing(copy, trigger.tbl_name):
            problem = _problem(copy, f"EXPLAIN {firing}")
            if problem and _problem(live, f"EXPLAIN {firing}") is None:
                yield _refused(trigger.name, trigger.tbl_name, problem)
                break


def _refused(trigger: str, table: str, problem: str) -> Finding:
    return refusal(
        table,
        f"the trigger {trigger}, or another one that fires with it, would not work with the new structure ({problem})",
        "drop it before the rebuild, and make one for the new structure after",
    )


def _firing(copy: sa.Connection, table: str) -> Iterator[str]:
    columns = [each.name for each in copy.exec_driver_sql(f"PRAGMA table_info({_quoted(table)})")]
    yield f"INSERT INTO {_quoted(table)} DEFAULT VALUES"
    yield f"DELETE FROM {_quoted(table)}"
    if columns:
        yield f"UPDATE {_quoted(table)} SET " + ", ".join(f"{_quoted(name)} = {_quoted(name)}" for name in columns)


def _children(copy: sa.Connection, stored: Sequence[sa.Row], tables: Collection[str]) -> Iterator[Finding]:  # type: ignore[type-arg]
    for child in (each.name for each in stored if each.type == "table" and each.name not in tables):
        parents = {each.table for each in copy.exec_driver_sql(f"PRAGMA foreign_key_list({_quoted(child)})")} & set(tables)
        problem = _problem(copy, f"PRAGMA foreign_key_check({_quoted(child)})") if parents else None
        if problem:
            reason = f"its foreign key would not fit the new structure ({problem})"
            yield refusal(child, reason, "keep the columns that it points to")


def _problem(connection: sa.Connection, statement: str) -> str | None:
    try:
        connection.exec_driver_sql(statement).close()
    except sa.exc.DBAPIError as error:
        return str(error.orig)
    return None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
