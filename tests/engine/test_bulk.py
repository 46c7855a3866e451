"""Rows on their fastest way into a table: whatever they hold arrives, and what cannot arrive is an error as ever."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.replay.row_tables import GreenTables, WriteError
from projection_rebuild.rows.bulk import FORMATS, as_text
from projection_rebuild.rows.types import Changes, row, row_type
from tests.engine.harness.databases import marked
from tests.engine.harness.things import Thing, columns, thing

metadata = sa.MetaData()
sa.Table("things", metadata, *columns(), mysql_engine="InnoDB", mysql_charset="utf8mb4")


@pytest.fixture
def dialect(dialect: Dialect) -> Dialect:
    """Each kind of database, with the table."""
    metadata.create_all(dialect.engine)
    return dialect


def _write(dialect: Dialect, rows: list[Thing]) -> None:
    kind = row_type(Thing)
    with dialect.connect() as connection, dialect.transaction(connection):
        tables = GreenTables(dialect, connection, None, lambda name: name)
        tables._do("insert into", kind, dialect.rows.load_rows, [kind.values(each) for each in rows])


def _read(dialect: Dialect, keys: list[int]) -> list[Thing]:
    with dialect.connect() as connection:
        found = GreenTables(dialect, connection, None, lambda name: name).load(row_type(Thing), [(key,) for key in keys])
        return sorted((Thing(*values) for values in found), key=lambda each: each.id)


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
    _write(dialect, [thing(555)])
    with pytest.raises(WriteError, match="things"):
        _write(dialect, [thing(number) for number in range(600)])
    assert _read(dialect, list(range(600))) == [thing(555)]


def test_a_value_that_does_not_fit_is_an_error_in_bulk(dialect: Dialect) -> None:
    if dialect.engine.dialect.name == "sqlite":
        with dialect.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE things")
            connection.exec_driver_sql(
                "CREATE TABLE things (id int PRIMARY KEY, words text CHECK (length(words) < 101), price, at, day, ratio, good, which, more, raw)"
            )
    rows = [thing(number) for number in range(600)]
    rows[300].words = "x" * 101
    with pytest.raises(WriteError, match="things") as caught:
        _write(dialect, rows)
    assert "xxx" not in str(caught.value)
    assert _read(dialect, list(range(600))) == []


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
        rows = [thing(number) for number in range(600)]
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
