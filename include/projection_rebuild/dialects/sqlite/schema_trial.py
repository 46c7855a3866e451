"""Tries tables of another structure in a copy of SQLite's schema in memory, to find dependents that would break."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress

import sqlalchemy as sa

from projection_rebuild.model.findings import Finding, refusal

_ALL = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"


def broken_dependents(
    live: sa.Connection, tables: Collection[str], statements: Sequence[str], views: Mapping[str, str]
) -> Iterator[Finding]:
    """Refuses views, triggers and foreign keys that would not work with the new tables.

    :param live: a connection to the live database
    :param tables: the names of the tables with another structure
    :param statements: the DDL that creates them
    :param views: new queries for views, by the view's name
    """
    stored = live.exec_driver_sql(_ALL).all()
    known = {entry.name for entry in stored if entry.type == "view"}
    for name in views.keys() - known:
        yield refusal("structure.views", f"there is no view {name}", "correct its name")
    memory = sa.create_engine("sqlite://")
    with memory.connect() as copy:
        copied = _copy(copy, [entry for entry in stored if entry.tbl_name not in tables], statements, views)
        for name in sorted(known):
            problem = None if name in copied else "its new query cannot be read"
            problem = problem or _problem(copy, f"SELECT * FROM {_quoted(name)} LIMIT 0")
            # A view that is broken today too is not the rebuild's concern.
            if problem and (name in views or _problem(live, f"SELECT * FROM {_quoted(name)} LIMIT 0") is None):
                reason = f"it would not work with the new structure ({problem})"
                yield refusal(f"the view {name}", reason, "give its new query in structure.views")
        yield from _triggers(live, copy, stored, tables)
        yield from _children(copy, stored, tables)
    memory.dispose()


def _copy(copy: sa.Connection, stored: Sequence[sa.Row], statements: Sequence[str], views: Mapping[str, str]) -> set[str]:  # type: ignore[type-arg]
    for statement in statements:
        copy.exec_driver_sql(statement)
    created = set[str]()
    for entry in stored:
        sql = f"CREATE VIEW {_quoted(entry.name)} AS {views[entry.name]}" if entry.name in views else entry.sql
        # A virtual table may need a module that this process has not loaded.
        with suppress(sa.exc.DBAPIError):
            copy.exec_driver_sql(sql)
            created.add(entry.name)
    return created


def _triggers(
    live: sa.Connection,
    copy: sa.Connection,
    stored: Sequence[sa.Row],  # type: ignore[type-arg]
    tables: Collection[str],
) -> Iterator[Finding]:
    """Tries each trigger: SQLite checks a trigger's body only when it prepares a statement that fires the trigger."""
    for trigger in (entry for entry in stored if entry.type == "trigger"):
        if trigger.tbl_name in tables:
            problem = _problem(copy, trigger.sql)
            if problem:
                yield _refused(trigger.name, trigger.tbl_name, problem)
                continue
        for firing in _firing_statements(copy, trigger.tbl_name):
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


def _firing_statements(copy: sa.Connection, table: str) -> Iterator[str]:
    columns = [column.name for column in copy.exec_driver_sql(f"PRAGMA table_info({_quoted(table)})")]
    yield f"INSERT INTO {_quoted(table)} DEFAULT VALUES"
    yield f"DELETE FROM {_quoted(table)}"
    if columns:
        yield f"UPDATE {_quoted(table)} SET " + ", ".join(f"{_quoted(name)} = {_quoted(name)}" for name in columns)


def _children(copy: sa.Connection, stored: Sequence[sa.Row], tables: Collection[str]) -> Iterator[Finding]:  # type: ignore[type-arg]
    for child in (table.name for table in stored if table.type == "table" and table.name not in tables):
        parents = {key.table for key in copy.exec_driver_sql(f"PRAGMA foreign_key_list({_quoted(child)})")} & set(tables)
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
