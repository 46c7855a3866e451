"""Rows without a database: plain dictionaries take the place of the tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from projection_rebuild.rows.fitting import Fits
from projection_rebuild.rows.types import Key, RowType, Values, row, row_type


@row("items", key="id", lookups=["parent"])
class Item:
    id: str
    parent: str
    amount: int = 0


@row("totals", key=("user", "month"))
class Total:
    user: int
    month: str
    amount: int = 0


class Stored:
    """A source of rows over plain dictionaries.

    :ivar loads: how often it was read
    """

    def __init__(self, *rows: Any) -> None:
        self.rows = {(type(each), row_type(type(each)).key_of(each)): row_type(type(each)).values(each) for each in rows}
        self.loads = 0

    def fits(self, kind: RowType) -> Fits:
        return Fits(kind, {})

    def load(self, kind: RowType, keys: Iterable[Key]) -> list[Values]:
        self.loads += 1
        return [self.rows[kind.row_class, key] for key in keys if (kind.row_class, key) in self.rows]

    def load_where(self, kind: RowType, column: str, values: Iterable[Any]) -> list[Values]:
        self.loads += 1
        at, wanted = kind.attributes.index(column), list(values)
        return [found for (cls, _), found in self.rows.items() if cls is kind.row_class and found[at] in wanted]

    def create(self, kind: RowType, values: Values) -> None:
        """Does nothing, as the source of green does."""
