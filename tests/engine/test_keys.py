"""Rows are found by keys and lookup columns of every type that a row class may have, whatever the driver makes of it."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.replay.row_tables import BlueTables, GreenTables
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import row, row_type


@row("prices", key="id", lookups=["price", "day", "at"])
class Price:
    id: UUID
    price: Decimal
    day: date
    at: datetime
    seen: int = 0


@row("codes", key="code")
class Code:
    code: str
    seen: int = 0


@row("rates", key=("owner", "rate", "day"), lookups=["owner"])
class Rate:
    owner: UUID
    rate: Decimal
    day: date
    seen: int = 0


metadata = sa.MetaData()
IDS = sa.String(36).with_variant(sa.Uuid(), "postgresql", "mariadb")
sa.Table(
    "prices",
    metadata,
    sa.Column("id", IDS, primary_key=True),
    sa.Column("price", sa.Numeric(12, 3)),
    sa.Column("day", sa.Date),
    sa.Column("at", sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")),
    sa.Column("seen", sa.Integer),
)
sa.Table(
    "rates",
    metadata,
    sa.Column("owner", IDS, primary_key=True),
    sa.Column("rate", sa.Numeric(12, 3), primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("seen", sa.Integer),
)
# A collation of its own, and letters that would be cut or filled up.
sa.Table(
    "codes",
    metadata,
    sa.Column("code", sa.String(4).with_variant(postgresql.CHAR(4, collation="C"), "postgresql"), primary_key=True),
    sa.Column("seen", sa.Integer),
)

DAY, AT = date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, 678)  # noqa: DTZ001 - as tables keep it


@pytest.fixture
def dialect(dialect: Dialect) -> Dialect:
    """Each kind of database, with the tables."""
    metadata.create_all(dialect.engine)
    return dialect


def write(connection: sa.Connection, dialect: Dialect, rows: RowBuffer, *, live: bool) -> None:
    """Writes what has changed, and forgets it."""
    with dialect.transaction(connection):
        if live:
            BlueTables(dialect, connection, None).write(rows.changes())
        else:
            green = GreenTables(dialect, connection, None, str)
            green.delete(rows.changes())
            green.put(rows.changes())
    rows.settle()
    rows.forget()


@pytest.mark.parametrize("live", [False, True])
def test_rows_are_found_changed_and_removed_by_keys_of_every_type(dialect: Dialect, live: bool) -> None:
    price, one, two = Decimal("12.5"), UUID(int=1), UUID(int=2)
    with dialect.connect() as connection:
        source = BlueTables(dialect, connection, None) if live else GreenTables(dialect, connection, None, str)
        rows = RowBuffer(source)
        for each in (one, two):
            rows.get_or_add(Price, each, price=price, day=DAY, at=AT)
            rows.get_or_add(Rate, each, price, DAY)
        write(connection, dialect, rows, live=live)
        rows.get(Price, one).seen += 1
        rows.get(Rate, one, price, DAY).seen += 1
        write(connection, dialect, rows, live=live)
        assert rows.where(Price, price=price) == [Price(one, price, DAY, AT, 1), Price(two, price, DAY, AT)]
        rows.forget()
        assert len(rows.where(Price, day=DAY)) == 2
        rows.forget()
        assert len(rows.where(Price, at=AT)) == 2
        assert rows.where(Rate, owner=one) == [Rate(one, price, DAY, 1)]
        rows.remove(Price, one)
        rows.remove(Rate, one, price, DAY)
        write(connection, dialect, rows, live=live)
        assert rows.find(Price, one) is None and rows.find(Rate, one, price, DAY) is None
        assert rows.get(Price, two).seen == 0 and rows.get(Rate, two, price, DAY).seen == 0


def test_many_rows_are_found_by_keys_of_every_type(dialect: Dialect) -> None:
    some = range(1, 601)
    with dialect.connect() as connection:
        rows = RowBuffer(GreenTables(dialect, connection, None, str))
        for number in some:
            rows.add(Price(UUID(int=number), Decimal(number), DAY + timedelta(number), AT + timedelta(number), number))
            rows.add(Rate(UUID(int=number), Decimal(number), DAY, number))
            rows.add(Code(f"{number:04}", number))
        write(connection, dialect, rows, live=False)
        rows.preload(row_type(Price), [(UUID(int=number),) for number in range(900)])
        rows.preload(row_type(Rate), [(UUID(int=number), Decimal(number), DAY) for number in range(900)])
        rows.preload(row_type(Code), [(f"{number:04}",) for number in range(900)] + [(f"{number:04}0",) for number in range(900)])
        assert [len(rows.all(each)) for each in (Price, Rate, Code)] == [600, 600, 600]
        rows.forget()
        for column, values in {
            "price": [Decimal(number) for number in some],
            "day": [DAY + timedelta(number) for number in some],
            "at": [AT + timedelta(number) for number in some],
        }.items():
            rows.preload_where(row_type(Price), column, values)
            assert sorted(each.seen for each in rows.all(Price)) == [*some]
            rows.forget()


def test_what_is_no_key_at_all_is_not_there(sqlite_url: sa.URL) -> None:
    dialect = dialect_for(sa.create_engine(sqlite_url))
    metadata.create_all(dialect.engine)
    with dialect.connect() as connection:
        rows = RowBuffer(GreenTables(dialect, connection, None, str))
        assert rows.find(Price, "no UUID") is None and rows.find(Rate, 1, "2", "2026-01-02") is None
        assert rows.where(Price, at="yesterday") == []
