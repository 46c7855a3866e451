"""What hangs on tables of MySQL and MariaDB and is in no definition of theirs: triggers, foreign keys, histograms, taken names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from projection_rebuild.names import TableSet

Query = Callable[..., Any]
"""Executes a statement with values."""

_TRIGGERS = """SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME, CREATED FROM information_schema.TRIGGERS
 WHERE EVENT_OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND EVENT_OBJECT_TABLE = %s"""

# Of the tables, and to them.
_KEYS = """SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
 WHERE (CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME IN ({marks}))
    OR (UNIQUE_CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE()) AND REFERENCED_TABLE_NAME IN ({marks}))"""

# MariaDB opens each table of the server for the question above. InnoDB's own list is there for those who may see identities, too.
_MARIADB_KEYS = """SELECT ID, FOR_NAME, REF_NAME FROM information_schema.INNODB_SYS_FOREIGN
 WHERE FOR_NAME IN ({marks}) OR REF_NAME IN ({marks})"""

_HISTOGRAMS = """SELECT TABLE_NAME, COLUMN_NAME, HISTOGRAM->>'$."number-of-buckets-specified"', HISTOGRAM->>'$."auto-update"'
 FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME = COALESCE(%s, DATABASE()) AND TABLE_NAME IN ({marks})"""

# Which of them has statistics of the server's own, beside those of the storage engine.
_MARIADB_STATISTICS = """SELECT table_name, COUNT(*) FROM mysql.column_stats WHERE db_name = COALESCE(%s, DATABASE()) AND table_name IN ({marks})
 GROUP BY table_name"""

_NAMES = """SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""

TRIGGERS_OF = "SELECT TRIGGER_NAME FROM (" + _TRIGGERS + ") of_table"
"""Names of the triggers of one table."""


Histogram = tuple[int, bool]
"""How many buckets, and whether the server keeps it up to date."""


def histograms(query: Query, schema: str | None, table: str) -> dict[str, Histogram]:
    """The histograms of a table on MySQL, by column."""
    rows = query(_HISTOGRAMS.format(marks="%s"), schema, table)
    return {column: (int(buckets), automatic == "true") for _, column, buckets, automatic in rows}


def hanging(query: Query, tables: Sequence[TableSet]) -> str:
    """The fingerprint on MySQL."""
    schema, blues = tables[0].schema, [each.blue for each in tables]
    names = [name for each in tables for name in (each.blue, each.green)]
    marks, both = ", ".join(["%s"] * len(blues)), ", ".join(["%s"] * len(names))
    return _digest(
        _each(query, _TRIGGERS, schema, names),
        query(_KEYS.format(marks=marks), schema, *blues, schema, *blues).all(),
        query(_HISTOGRAMS.format(marks=both), schema, *names).all(),
        _each(query, _NAMES, schema, _doubles(tables)),
    )


def hanging_on_mariadb(query: Query, if_allowed: Query, tables: Sequence[TableSet], spelled: Callable[[str], str]) -> str:
    """The fingerprint on MariaDB.

    :param if_allowed: as ``query``, and nothing where we may not look
    :param spelled: a name as InnoDB's catalog spells it
    """
    schema = tables[0].schema
    names = [name for each in tables for name in (each.blue, each.green)]
    database = spelled(schema or query("SELECT DATABASE()").scalar_one())
    known = [f"{database}/{spelled(each.blue)}" for each in tables]
    keys = _MARIADB_KEYS.format(marks=", ".join(["%s"] * len(known)))
    statistics = _MARIADB_STATISTICS.format(marks=", ".join(["%s"] * len(names)))
    return _digest(
        _each(query, _TRIGGERS, schema, names),
        if_allowed(keys, *known, *known),
        if_allowed(statistics, schema, *names),
        _each(query, _NAMES, schema, _doubles(tables)),
    )


def _doubles(tables: Sequence[TableSet]) -> list[str]:
    return [name for each in tables for name in (each.green, each.old)]


def _each(query: Query, statement: str, schema: str | None, names: Sequence[str]) -> list[Any]:
    """One question for all names. Each has a part of its own, by which MariaDB finds it without opening the schema's other tables."""
    values = [value for name in names for value in (schema, name)]
    return list(query(" UNION ALL ".join([statement] * len(names)), *values))


def _digest(*found: Sequence[Any]) -> str:
    return hashlib.sha256(repr([sorted(map(str, rows)) for rows in found]).encode()).hexdigest()
