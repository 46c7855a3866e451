"""Preflight checks on SQLite beside those of the tables' structure: the file, its disk, its journal, and keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import PreflightProbe, RunTables
from projection_rebuild.dialects.sqlite.base import SqliteBase
from projection_rebuild.model.findings import Finding

OLDEST = (3, 26)
"""The first version with PRAGMA legacy_alter_table."""

ALLOW = "set PRAGMA query_only = 0 in its connections"

Query = Callable[..., Any]
"""Executes SQL with bound values."""


class SqlitePreflight(SqliteBase, PreflightProbe):
    """See :class:`PreflightProbe`."""

    def _oldest(self) -> tuple[int, ...]:
        return OLDEST

    def preflight(self, connection: sa.Connection, run_tables: RunTables) -> list[Finding]:
        query = partial(self._execute, connection)
        return [*of_server(query), *of_tables(query, self.quote, run_tables)]

    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        # An account that may open the file may read it. The high-water mark takes no lock, and the fence needs only the right to write.
        return list(of_events(partial(self._execute, connection), table))

    def free_bytes(self, connection: sa.Connection) -> int | None:
        return free(partial(self._execute, connection))


def of_server(query: Query) -> Iterator[Finding]:
    """Checks whether the engine can write the file, and whether readers can go on meanwhile."""
    if _is_kept(query):
        yield Finding(
            about="query_only",
            problem="it is on in its connections, so the application keeps this database read-only",
            remedy=f"use the database that is written, or {ALLOW}",
            refuses=True,
        )
    elif _is_read_only(query):
        yield Finding(
            about="database",
            problem="its file, or the folder that its journal goes to, is read-only",
            remedy="let this process write both",
            refuses=True,
        )
    journal = str(query("PRAGMA journal_mode").scalar_one())
    if journal != "wal":
        yield Finding(
            about="journal_mode",
            problem=f"with {journal}, readers and each batch of a replay wait for each other",
            remedy="PRAGMA journal_mode = WAL",
        )


def of_events(query: Query, table: str) -> Iterator[Finding]:
    """Checks whether the fence can block appends, which needs the right to write."""
    if _is_kept(query):
        yield Finding(
            about=f"event store {table}",
            problem="query_only is on in its connections, so that appends cannot be held back",
            remedy=f"{ALLOW}; nothing is written to it",
            refuses=True,
        )
    elif _is_read_only(query):
        yield Finding(
            about=f"event store {table}",
            problem="its file, or the folder that its journal goes to, is read-only, so that appends cannot be held back",
            remedy="let this process write both; nothing is written to it",
            refuses=True,
        )


def _is_kept(query: Query) -> bool:
    """Whether the application has set query_only in its engine's connections. The engine's own settings leave it as it is."""
    return bool(query("PRAGMA query_only").scalar())


def _is_read_only(query: Query) -> bool:
    """Whether SQLite refuses a write. This writes an unchanged value and rolls it back, since BEGIN alone shows nothing."""
    try:
        query("BEGIN IMMEDIATE")
        query(f"PRAGMA user_version = {query('PRAGMA user_version').scalar_one()}")
    except sa.exc.OperationalError as error:
        return str(getattr(error.orig, "sqlite_errorname", "")).startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN"))
    finally:
        with suppress(sa.exc.OperationalError):
            query("ROLLBACK")
    return False


def of_tables(query: Query, quote: Callable[[str], str], run_tables: RunTables) -> Iterator[Finding]:
    """Checks the primary and foreign keys of the tables."""
    for table in run_tables.tables:
        columns = query(f"PRAGMA table_xinfo({quote(table.blue)})").all()
        if not any(column.pk for column in columns):
            yield Finding(
                about=table.blue,
                problem="it has no primary key, only a unique one; a NULL in it is equal to no other",
                remedy="declare the key as PRIMARY KEY, or its columns NOT NULL",
            )
        yield from _lost_parents(query, quote, table.blue)


def _lost_parents(query: Query, quote: Callable[[str], str], table: str) -> Iterator[Finding]:
    """Finds foreign keys that SQLite cannot follow. It accepts any definition; the first write with ``foreign_keys`` on fails."""
    keys: dict[int, list[Any]] = {}
    for part in query(f"PRAGMA foreign_key_list({quote(table)})").all():
        keys.setdefault(part.id, []).append(part)
    for parts in keys.values():
        own, parent = ", ".join(getattr(part, "from") for part in parts), parts[0].table
        problem, refuses = _lost(query, quote, parent, [part.to for part in parts])
        if problem:
            yield Finding(
                about=table,
                problem=f"its foreign key ({own}) points to {parent}, and {problem}",
                remedy=f"make {parent} what the key needs, or take the key out of {table}",
                refuses=refuses,
            )


def _lost(query: Query, quote: Callable[[str], str], parent: str, named: list[str | None]) -> tuple[str, bool]:
    """The problem of a key's parent, or an empty text; and whether the engine cannot look for parents by this key."""
    if not query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", parent).scalar():
        return "there is no such table; if the application sets foreign_keys = 1, its writes fail", False
    columns = query(f"PRAGMA table_xinfo({quote(parent)})").all()
    primary = [column.name.casefold() for column in columns if column.pk]
    if named[0] is None:
        return ("its primary key has another number of columns", True) if len(primary) != len(named) else ("", False)
    wanted = [str(name).casefold() for name in named]
    existing = {column.name.casefold() for column in columns}
    if missing := [name for name in wanted if name not in existing]:
        return f"it has no column {', '.join(missing)}", True
    unique = [{*primary}, *({name.casefold() for name in names} for names in _unique_indexes(query, quote, parent))]
    return ("", False) if {*wanted} in unique else ("these columns are not unique there", False)


def _unique_indexes(query: Query, quote: Callable[[str], str], table: str) -> list[list[str]]:
    indexes = [index for index in query(f"PRAGMA index_list({quote(table)})").all() if index.unique and not index.partial]
    parts = [query(f"PRAGMA index_xinfo({quote(index.name)})").all() for index in indexes]
    return [[part.name for part in columns if part.key] for columns in parts if all(part.name for part in columns if part.key)]


def unique_collations(query: Query, quote: Callable[[str], str], table: str) -> list[tuple[str, str]]:
    """The columns of unique indexes, including the primary key's, each with the collation that decides which values are equal."""
    collations = set()
    for index in query(f"PRAGMA index_list({quote(table)})").all():
        if index.unique:
            parts = query(f"PRAGMA index_xinfo({quote(index.name)})").all()
            collations |= {(part.name, part.coll.upper()) for part in parts if part.key and part.name}
    return sorted(collations)


def size(query: Query, table: str) -> int:
    """The bytes of a table with its indexes; of the whole file if this build of SQLite has no ``dbstat``."""
    try:
        names = "SELECT name FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('table', 'index')"
        return int(
            query(f"SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = 1 AND name IN ({names})", table).scalar_one()
        )
    except sa.exc.OperationalError:
        pages = [int(query(f"PRAGMA {what}").scalar_one()) for what in ("page_count", "freelist_count", "page_size")]
        return (pages[0] - pages[1]) * pages[2]


def free(query: Query) -> int | None:
    """The bytes that the database can still take: free space on the disk and unused pages. None for one in memory."""
    file = next((str(database.file) for database in query("PRAGMA database_list") if database.name == "main"), "")
    if not file:
        return None
    disk = os.statvfs(Path(file).parent)
    unused = int(query("PRAGMA freelist_count").scalar_one()) * int(query("PRAGMA page_size").scalar_one())
    return disk.f_bavail * disk.f_frsize + unused
