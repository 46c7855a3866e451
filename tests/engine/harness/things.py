"""Rows with a value of each type that a row class may have, including awkward values."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.rows.types import row

WORDS = [
    "plain",
    "",
    None,
    "tab\t",
    "line\nline\r",
    "back\\slash \\N \\.",
    "naïve 日本 🛒",
    "100% 'quoted' \"twice\"",
    "\\",
    "\x01\x7f",
]

MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
"""The type of a time with microseconds."""


@row("things", key="id")
class Thing:
    id: int
    words: str | None
    price: Decimal | None
    at: datetime | None
    day: date | None
    ratio: float | None
    good: bool | None
    which: UUID | None
    more: dict[str, Any] | None
    raw: bytes | None = None


def columns() -> list[sa.Column[Any]]:
    """The columns of the table of things."""
    return [
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("words", sa.String(100)),
        sa.Column("price", sa.Numeric(12, 3)),
        sa.Column("at", MOMENT),
        sa.Column("day", sa.Date),
        sa.Column("ratio", sa.Double),
        sa.Column("good", sa.Boolean),
        sa.Column("which", sa.String(36)),
        sa.Column("more", sa.JSON),
        sa.Column("raw", sa.LargeBinary),
    ]


def thing(number: int, raw: bytes | None = None) -> Thing:
    """The row with this number; each seventh row has only its id and its words."""
    words = WORDS[number % len(WORDS)]
    if number % 7 == 0:
        return Thing(number, words, None, None, None, None, None, None, None)
    moment = datetime(2026, 1, 1) + timedelta(seconds=number, microseconds=number)  # noqa: DTZ001 - as tables keep it
    price = Decimal(number) / 8
    return Thing(number, words, price, moment, moment.date(), number / 3, number % 2 == 0, UUID(int=number), {"w": words}, raw)
