"""MySQL: the fingerprint of what hangs on tables beside their definitions.

It covers triggers, foreign keys, histograms, and the names that a rebuild needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from projection_rebuild.model.names import TableSet

Query = Callable[..., Any]
"""Executes a statement with values."""

TRIGGERS = """SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME, CREATED FROM information_schema.TRIGGERS
 WHERE EVENT_OBJECT_SCHEMA = COALESCE(%s, DATABASE()) AND EVENT_OBJECT_TABLE = %s"""

# Foreign keys of the tables, and those that refer to them.
_KEYS = """SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS
 WHERE (CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME IN ({marks}))
    OR (UNIQUE_CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE()) AND REFERENCED_TABLE_NAME IN ({marks}))"""

_HISTOGRAMS = """SELECT TABLE_NAME, COLUMN_NAME, HISTOGRAM->>'$."number-of-buckets-specified"', HISTOGRAM->>'$."auto-update"'
 FROM information_schema.COLUMN_STATISTICS WHERE SCHEMA_NAME = COALESCE(%s, DATABASE()) AND TABLE_NAME IN ({marks})"""

NAMES = """SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES
 WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""

TRIGGERS_OF = "SELECT TRIGGER_NAME FROM (" + TRIGGERS + ") of_table"
"""A query for the names of one table's triggers."""


Histogram = tuple[int, bool]
"""The number of buckets, and whether the server updates the histogram."""


def histograms(query: Query, schema: str | None, table: str) -> dict[str, Histogram]:
    """The histograms of a table, by column."""
    rows = query(_HISTOGRAMS.format(marks="%s"), schema, table)
    return {column: (int(buckets), automatic == "true") for _, column, buckets, automatic in rows}


def hanging(query: Query, tables: Sequence[TableSet]) -> str:
    """The fingerprint that :meth:`Dialect.hanging` returns."""
    schema, blues = tables[0].schema, [table.blue for table in tables]
    names = [name for table in tables for name in (table.blue, table.green)]
    marks, both = ", ".join(["%s"] * len(blues)), ", ".join(["%s"] * len(names))
    return digest(
        of_each(query, TRIGGERS, schema, names),
        query(_KEYS.format(marks=marks), schema, *blues, schema, *blues).all(),
        query(_HISTOGRAMS.format(marks=both), schema, *names).all(),
        of_each(query, NAMES, schema, doubles(tables)),
    )


def doubles(tables: Sequence[TableSet]) -> list[str]:
    """The names that a rebuild needs beside those of the live tables."""
    return [name for table in tables for name in (table.green, table.old)]


def of_each(query: Query, statement: str, schema: str | None, names: Sequence[str]) -> list[Any]:
    """The rows of a statement for each name, in one query.

    The query has a part of its own for each name, so that MariaDB does not open the schema's other tables.
    """
    values = [value for name in names for value in (schema, name)]
    return list(query(" UNION ALL ".join([statement] * len(names)), *values))


def digest(*results: Sequence[Any]) -> str:
    """A hash of the rows of several results, which does not depend on the order of the rows."""
    return hashlib.sha256(repr([sorted(map(str, rows)) for rows in results]).encode()).hexdigest()
