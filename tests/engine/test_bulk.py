"""Rows on their fastest way into a table: whatever they hold arrives, and what cannot arrive is an error as ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.errors.trouble import Kind
from projection_rebuild.replay.row_tables import GreenTables, WriteError
from projection_rebuild.rows import bulk
from projection_rebuild.rows.bulk import FORMATS, as_text
from projection_rebuild.rows.types import Changes, row, row_type
from tests.engine.harness.databases import having, marked

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


metadata = sa.MetaData()
things = sa.Table(
    "things",
    metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("words", sa.String(100)),
    sa.Column("price", sa.Numeric(12, 3)),
    sa.Column("at", sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")),
    sa.Column("day", sa.Date),
    sa.Column("ratio", sa.Double),
    sa.Column("good", sa.Boolean),
    sa.Column("which", sa.String(36)),
    sa.Column("more", sa.JSON),
    sa.Column("raw", sa.LargeBinary),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
)


def _thing(number: int, raw: bytes | None = None) -> Thing:
    words = WORDS[number % len(WORDS)]
    if number % 7 == 0:
        return Thing(number, words, None, None, None, None, None, None, None)
    moment = datetime(2026, 1, 1) + timedelta(seconds=number, microseconds=number)  # noqa: DTZ001 - as tables keep it
    price = Decimal(number) / 8
    return Thing(number, words, price, moment, moment.date(), number / 3, number % 2 == 0, UUID(int=number), {"w": words}, raw)


@pytest.fixture
def dialect(dialect: Dialect) -> Dialect:
    """Each kind of database, with the table."""
    metadata.create_all(dialect.engine)
    return dialect


def _write(dialect: Dialect, rows: list[Thing]) -> None:
    kind = row_type(Thing)
    with dialect.connect() as connection, dialect.transaction(connection):
        tables = GreenTables(dialect, connection, None, lambda name: name)
        tables._do("insert into", kind, dialect.load_rows, [kind.values(each) for each in rows])


def _read(dialect: Dialect, keys: list[int]) -> list[Thing]:
    with dialect.connect() as connection:
        found = GreenTables(dialect, connection, None, lambda name: name).load(row_type(Thing), [(key,) for key in keys])
        return sorted((Thing(*values) for values in found), key=lambda each: each.id)


@pytest.mark.parametrize("raw", [None, b"\x00\xff\\\t"], ids=["by text", "by the driver"])
def test_what_is_written_in_bulk_is_read_again(dialect: Dialect, raw: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "ROWS_AT_ONCE", 250)
    rows = [_thing(number, raw) for number in range(600)]
    _write(dialect, rows)
    assert _read(dialect, list(range(600))) == rows


@pytest.mark.parametrize("kind", having(one_writer=False))
@pytest.mark.parametrize("many", [3, 300])
def test_few_rows_and_many_are_written_alike(kind: str, many: int, new_database: Any) -> None:
    """By COPY or a file, and by the driver: times with an offset, and bits."""
    dialect = dialect_for(sa.create_engine(new_database(kind)))
    metadata.create_all(dialect.engine)
    if kind != "postgres":
        with dialect.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE things MODIFY good BIT(8)")
    rows = [_thing(number) for number in range(1, many)]
    wanted = [replace(each) for each in rows]
    for each, right in zip(rows, wanted, strict=True):
        if each.at:
            right.at = each.at
            each.at = (each.at + timedelta(hours=2)).replace(tzinfo=timezone(timedelta(hours=2)))
    _write(dialect, rows)
    with dialect.engine.connect() as connection:
        numbers = "good + 0" if kind != "postgres" else "good::int"
        found = connection.exec_driver_sql(f"SELECT at, {numbers} FROM things ORDER BY id").all()
    assert [tuple(each) for each in found] == [(each.at, None if each.good is None else int(each.good)) for each in wanted]
    dialect.engine.dispose()


@row("anything", key="name")
class Anything:
    name: Any
    amount: int


def test_keys_that_have_no_order_are_written_all_the_same(sqlite_url: sa.URL) -> None:
    dialect = dialect_for(sa.create_engine(sqlite_url))
    keys = ["b", 7, None, "a", 3.5]
    with dialect.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE anything (name PRIMARY KEY, amount INTEGER)")
        table = GreenTables(dialect, connection, None, lambda name: name)
        made = Changes(row_type(Anything), inserted=[(key, number) for number, key in enumerate(keys)])
        table.put([made])
        found = connection.exec_driver_sql("SELECT name, amount FROM anything ORDER BY amount").all()
    assert [tuple(each) for each in found] == made.inserted


def test_rows_that_the_database_numbers_keep_their_order(sqlite_url: sa.URL) -> None:
    dialect = dialect_for(sa.create_engine(sqlite_url))
    with dialect.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE anything (id INTEGER PRIMARY KEY, name TEXT UNIQUE, amount INTEGER)")
        made = Changes(row_type(Anything), inserted=[(name, 0) for name in "cab"])
        GreenTables(dialect, connection, None, lambda name: name).put([made])
        found = connection.exec_driver_sql("SELECT name FROM anything ORDER BY id").scalars().all()
    assert found == ["c", "a", "b"]


def test_a_double_row_in_bulk_is_an_error_and_leaves_none(dialect: Dialect) -> None:
    _write(dialect, [_thing(555)])
    with pytest.raises(WriteError, match="things"):
        _write(dialect, [_thing(number) for number in range(600)])
    assert _read(dialect, list(range(600))) == [_thing(555)]


def test_a_value_that_does_not_fit_is_an_error_in_bulk(dialect: Dialect) -> None:
    if dialect.engine.dialect.name == "sqlite":
        with dialect.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE things")
            connection.exec_driver_sql(
                "CREATE TABLE things (id int PRIMARY KEY, words text CHECK (length(words) < 101), price, at, day, ratio, good, which, more, raw)"
            )
    rows = [_thing(number) for number in range(600)]
    rows[300].words = "x" * 101
    with pytest.raises(WriteError, match="things") as caught:
        _write(dialect, rows)
    assert "xxx" not in str(caught.value)
    assert _read(dialect, list(range(600))) == []


REFUSED = {
    "a day": "INSERT INTO things (id, day) VALUES (1, '2026-02-31')",
    "a time": "INSERT INTO things (id, at) VALUES (1, 's3cret')",
    "a cast": "INSERT INTO things (id, price) SELECT 1, CAST('s3cret' AS SIGNED)",
    "a number": "INSERT INTO things (id, price) VALUES (1, 's3cret')",
    "a day by a function": "INSERT INTO things (id, day) VALUES (1, STR_TO_DATE('s3cret', '%%Y'))",
    "a division": "INSERT INTO things (id, price) VALUES (1, 1 / 0)",
    "a sum": "INSERT INTO things (id, price) VALUES (1, 9223372036854775807 + 1)",
    "a text": "INSERT INTO things (id, words) VALUES (1, x'ff')",
    "JSON": "INSERT INTO things (id, more) VALUES (1, '{s3cret')",
    "a part of JSON": "INSERT INTO things (id, words) VALUES (1, JSON_EXTRACT('{s3cret', '$.a'))",
}


@pytest.mark.parametrize("kind", marked("mariadb", "mysql"))
def test_an_error_about_a_value_is_known_for_what_it_is(kind: str, new_database: Any) -> None:
    dialect = dialect_for(sa.create_engine(new_database(kind)))
    metadata.create_all(dialect.engine)
    unknown = {}
    with dialect.connect() as connection:
        for what, statement in REFUSED.items():
            with pytest.raises(sa.exc.DBAPIError) as refused:
                connection.exec_driver_sql(statement)
            if dialect.kind_of(refused.value) is not Kind.VALUE:
                unknown[what] = refused.value.orig
    dialect.engine.dispose()
    assert unknown == {}


@pytest.mark.parametrize("kind", marked("mariadb", "mysql"))
@pytest.mark.parametrize("allowed", [True, False])
def test_files_are_used_where_the_server_takes_them(kind: str, allowed: bool, new_database: Any) -> None:
    url = new_database(kind)
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        before = connection.exec_driver_sql("SELECT @@GLOBAL.local_infile").scalar_one()
        connection.exec_driver_sql(f"SET GLOBAL local_infile = {int(allowed)}")
    try:
        dialect = dialect_for(sa.create_engine(url))
        assert isinstance(dialect, MySQLFamily)
        metadata.create_all(dialect.engine)
        seen: list[str] = []
        sa.event.listen(dialect.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        with dialect.connect() as connection:
            assert [each.problem[:10] for each in dialect._files(connection)] == ([] if allowed else ["LOAD DATA "])
        rows = [_thing(number) for number in range(600)]
        _write(dialect, rows)
        assert _read(dialect, list(range(600))) == rows
        assert any(each.startswith("INSERT") for each in seen) is not allowed
        dialect.engine.dispose()
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"SET GLOBAL local_infile = {int(before)}")


def test_columns_of_several_types_are_written_value_by_value() -> None:
    assert as_text([(1, "a\tb"), ("x\\", 2), (None, None)], FORMATS) == "1\ta\\tb\nx\\\\\t2\n\\N\t\\N\n"


def test_a_type_that_has_no_format_is_left_to_the_driver() -> None:
    assert as_text([(1, b"raw")], FORMATS) is None
    assert as_text([(1, b"raw"), (2, "text")], FORMATS) is None
