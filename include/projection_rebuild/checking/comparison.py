"""Compares two tables in Python, value by value and type by type. It uses no SQL for it, unlike verification."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import quoted_name

from projection_rebuild.dialects.base import Comparing
from projection_rebuild.rows.types import Key, RowType, Values
from projection_rebuild.rows.values import from_json, plain_type

AT_ONCE = 1_000
"""Rows per read of each table."""


@dataclass(frozen=True)
class Unlike:
    """A difference between two tables.

    :param key: the row's key, as the database holds it
    :param column: the column that differs; None: only one of the tables has the row
    :param types: the types of the two values; None: they have the same type
    :param only: the number of the table that has the row, 0 or 1; None: both have it
    """

    table: str
    key: Key
    column: str | None = None
    types: tuple[str, str] | None = None
    only: int | None = None

    def describe(self, names: tuple[str, str]) -> str:
        """The difference in words, without values except the key.

        :param names: the ways that have filled the two tables
        """
        row = f"{self.table} ({', '.join(map(repr, self.key))})"
        if self.only is not None:
            return f"{row}: it exists only {names[self.only]}"
        types = f", {self.types[0]} {names[0]} and {self.types[1]} {names[1]}" if self.types else ""
        return f"{row}: the column {self.column} differs{types}"


def unlike(dialect: Comparing, schema: str | None, kind: RowType, one: str, other: str) -> Iterator[Unlike]:
    """The differences between the rows of two tables, in the columns that the projector knows.

    It reads both tables side by side in the order of their keys, so that it keeps only rows without a twin in memory.

    :param kind: the type of the rows
    :param one: the name of the first table
    :param other: the name of the second table
    """
    key_columns = [kind.columns.index(name) for name in kind.key]
    missing: tuple[dict[Key, Values], dict[Key, Values]] = ({}, {})
    with dialect.connect() as left, dialect.connect() as right:
        sides = [_rows(dialect, connection, schema, kind, name) for connection, name in ((left, one), (right, other))]
        with closing(sides[0]), closing(sides[1]):
            for pair in zip_longest(*sides):
                for side, row in enumerate(pair):
                    if row is None:
                        continue
                    key = tuple(_typed(row[at]) for at in key_columns)
                    twin = missing[1 - side].pop(key, None)
                    if twin is None:
                        missing[side][key] = row
                    else:
                        yield from _columns(kind, key, *((twin, row) if side else (row, twin)))
    for only, rows in enumerate(missing):
        for row in rows.values():
            yield Unlike(kind.table, tuple(row[at] for at in key_columns), only=only)


def _rows(
    dialect: Comparing, connection: sa.Connection, schema: str | None, kind: RowType, table: str
) -> Generator[Values, None, None]:
    columns: dict[str, sa.ColumnClause[Any]] = {name: sa.column(quoted_name(name, quote=True)) for name in kind.columns}
    json = [at for at, name in enumerate(kind.columns) if plain_type(kind.types[name]) in (dict, list)]
    # JSON as text: a driver's own objects lose digits.
    selected = [sa.cast(column, sa.Text) if at in json else column for at, column in enumerate(columns.values())]
    query = sa.select(*selected).select_from(sa.table(quoted_name(table, quote=True), schema=schema))
    with closing(dialect.read(connection, query.order_by(*(columns[name] for name in kind.key)), AT_ONCE)) as pages:
        for page in pages:
            for row in page:
                yield tuple(from_json(value) if at in json else value for at, value in enumerate(row)) if json else tuple(row)


def _columns(kind: RowType, key: Key, one: Values, other: Values) -> Iterator[Unlike]:
    for name, left, right in zip(kind.columns, one, other, strict=True):
        if not same(left, right):
            types = None if type(left) is type(right) else (_type(left), _type(right))
            yield Unlike(kind.table, tuple(value for _, value in key), name, types)


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same type and are equal.

    1, 1.0 and true differ. The order of an object's fields does not matter.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))


def _typed(value: Any) -> tuple[str, Any]:
    """A key value with its type: keys of different types are different, even if Python takes them for equal."""
    return _type(value), value


def _type(value: Any) -> str:
    return "NULL" if value is None else type(value).__name__
