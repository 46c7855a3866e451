"""What may be in a rebuild's way on SQLite besides the tables themselves: the file, its disk, its journal, keys."""

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
"""The first with PRAGMA legacy_alter_table."""

ALLOW = "tell its connections PRAGMA query_only = 0"

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
        # Whoever may open the file may read it, and an append that is visible is settled; who writes holds appends back.
        return list(of_events(partial(self._execute, connection), table))

    def free_bytes(self, connection: sa.Connection) -> int | None:
        return free(partial(self._execute, connection))


def of_server(query: Query) -> Iterator[Finding]:
    """Whether the file can be written, and how it is read meanwhile."""
    if _is_kept(query):
        yield Finding(
            about="query_only",
            problem="its connections are told to write nothing, so somebody keeps this database read-only",
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
    """Whether appends can be held back, which takes the right to write."""
    if _is_kept(query):
        yield Finding(
            about=f"event store {table}",
            problem="its connections are told to write nothing (query_only), so that appends cannot be held back",
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
    """Whether whoever made the engine has told its connections to write nothing; our own settings leave that as it is."""
    return bool(query("PRAGMA query_only").scalar())


def _is_read_only(query: Query) -> bool:
    """Begins to write what is there already, and takes it back: a transaction alone says nothing."""
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
    """The keys of the tables."""
    for table in run_tables.tables:
        columns = query(f"PRAGMA table_xinfo({quote(table.blue)})").all()
        if not any(each.pk for each in columns):
            yield Finding(
                about=table.blue,
                problem="it has no primary key, only a unique one; a NULL in it is equal to no other",
                remedy="declare the key as PRIMARY KEY, or its columns NOT NULL",
            )
        yield from _lost_parents(query, quote, table.blue)


def _lost_parents(query: Query, quote: Callable[[str], str], table: str) -> Iterator[Finding]:
    """Foreign keys that SQLite cannot follow: it takes any definition, and fails at the first write that has keys checked."""
    keys: dict[int, list[Any]] = {}
    for part in query(f"PRAGMA foreign_key_list({quote(table)})").all():
        keys.setdefault(part.id, []).append(part)
    for parts in keys.values():
        own, parent = ", ".join(getattr(each, "from") for each in parts), parts[0].table
        problem, refuses = _lost(query, quote, parent, [each.to for each in parts])
        if problem:
            yield Finding(
                about=table,
                problem=f"its foreign key ({own}) points to {parent}, and {problem}",
                remedy=f"make {parent} what the key needs, or take the key out of {table}",
                refuses=refuses,
            )


def _lost(query: Query, quote: Callable[[str], str], parent: str, named: list[str | None]) -> tuple[str, bool]:
    """What a key's parent lacks, and whether its rows could not be looked for; empty: nothing."""
    if not query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE", parent).scalar():
        return "there is no such table; where the application has foreign keys checked, its writes fail", False
    columns = query(f"PRAGMA table_xinfo({quote(parent)})").all()
    primary = [each.name.casefold() for each in columns if each.pk]
    if named[0] is None:
        return ("its primary key has not as many columns", True) if len(primary) != len(named) else ("", False)
    wanted = [str(each).casefold() for each in named]
    if missing := [each for each in wanted if each not in {each.name.casefold() for each in columns}]:
        return f"it has no column {', '.join(missing)}", True
    unique = [{*primary}, *({each.casefold() for each in found} for found in _unique_indexes(query, quote, parent))]
    return ("", False) if {*wanted} in unique else ("these columns are not unique there", False)


def _unique_indexes(query: Query, quote: Callable[[str], str], table: str) -> list[list[str]]:
    indexes = [each for each in query(f"PRAGMA index_list({quote(table)})").all() if each.unique and not each.partial]
    parts = [query(f"PRAGMA index_xinfo({quote(each.name)})").all() for each in indexes]
    return [[part.name for part in each if part.key] for each in parts if all(part.name for part in each if part.key)]


def unique_collations(query: Query, quote: Callable[[str], str], table: str) -> list[tuple[str, str]]:
    """Columns of unique indexes, the primary key's among them, with the collation by which they are unique."""
    found = set()
    for index in query(f"PRAGMA index_list({quote(table)})").all():
        if index.unique:
            parts = query(f"PRAGMA index_xinfo({quote(index.name)})").all()
            found |= {(part.name, part.coll.upper()) for part in parts if part.key and part.name}
    return sorted(found)


def size(query: Query, table: str) -> int:
    """Bytes of a table with its indexes; of the whole file, where this build cannot tell."""
    try:
        names = "SELECT name FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE AND type IN ('table', 'index')"
        return int(
            query(f"SELECT coalesce(sum(pgsize), 0) FROM dbstat WHERE aggregate = 1 AND name IN ({names})", table).scalar_one()
        )
    except sa.exc.OperationalError:
        pages = [int(query(f"PRAGMA {what}").scalar_one()) for what in ("page_count", "freelist_count", "page_size")]
        return (pages[0] - pages[1]) * pages[2]


def free(query: Query) -> int | None:
    """Bytes that the file can still grow by, with its unused pages; None: it has no file."""
    file = next((str(each.file) for each in query("PRAGMA database_list") if each.name == "main"), "")
    if not file:
        return None
    disk = os.statvfs(Path(file).parent)
    unused = int(query("PRAGMA freelist_count").scalar_one()) * int(query("PRAGMA page_size").scalar_one())
    return disk.f_bavail * disk.f_frsize + unused
