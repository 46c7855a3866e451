"""Two tables of the same rows, compared in Python, value by value and type by type. Not by SQL, which verification compares by."""

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
"""Rows that are read of each table at once."""


@dataclass(frozen=True)
class Unlike:
    """What is not the same in two tables.

    :param key: of the row, as the database holds it
    :param column: the one that differs; None: only one of the tables has the row
    :param types: of the two values, where these are not the same
    :param only: which of the two has the row, 0 or 1, if only one has it
    """

    table: str
    key: Key
    column: str | None = None
    types: tuple[str, str] | None = None
    only: int | None = None

    def describe(self, names: tuple[str, str]) -> str:
        """In words, and never with a value.

        :param names: what the two tables are called
        """
        row = f"{self.table} ({', '.join(map(repr, self.key))})"
        if self.only is not None:
            return f"{row}: only there {names[self.only]}"
        types = f", {self.types[0]} {names[0]} and {self.types[1]} {names[1]}" if self.types else ""
        return f"{row}: the column {self.column} differs{types}"


def unlike(dialect: Comparing, schema: str | None, kind: RowType, one: str, other: str) -> Iterator[Unlike]:
    """Where the rows of two tables differ, in the columns that the projector knows.

    They are read side by side in the order of their keys, so that only rows that have no double are kept in memory.

    :param kind: what the rows are
    :param one: the name of a table
    """
    names = [kind.columns.index(name) for name in kind.key]
    missing: tuple[dict[Key, Values], dict[Key, Values]] = ({}, {})
    with dialect.connect() as left, dialect.connect() as right:
        sides = [_rows(dialect, connection, schema, kind, name) for connection, name in ((left, one), (right, other))]
        with closing(sides[0]), closing(sides[1]):
            for pair in zip_longest(*sides):
                for side, row in enumerate(pair):
                    if row is None:
                        continue
                    key = tuple(_told(row[at]) for at in names)
                    double = missing[1 - side].pop(key, None)
                    if double is None:
                        missing[side][key] = row
                    else:
                        yield from _columns(kind, key, *((double, row) if side else (row, double)))
    for only, rows in enumerate(missing):
        for row in rows.values():
            yield Unlike(kind.table, tuple(row[at] for at in names), only=only)


def _rows(
    dialect: Comparing, connection: sa.Connection, schema: str | None, kind: RowType, table: str
) -> Generator[Values, None, None]:
    columns: dict[str, sa.ColumnClause[Any]] = {name: sa.column(quoted_name(name, quote=True)) for name in kind.columns}
    json = [at for at, name in enumerate(kind.columns) if plain_type(kind.types[name]) in (dict, list)]
    # As text: a driver's own objects have lost digits.
    wanted = [sa.cast(each, sa.Text) if at in json else each for at, each in enumerate(columns.values())]
    query = sa.select(*wanted).select_from(sa.table(quoted_name(table, quote=True), schema=schema))
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
    """Whether two values are of one type and equal; 1, 1.0 and true are not, and the order of an object's fields does not count."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))


def _told(value: Any) -> tuple[str, Any]:
    """Keys of different types are different keys, also where Python takes them for equal."""
    return _type(value), value


def _type(value: Any) -> str:
    return "NULL" if value is None else type(value).__name__
