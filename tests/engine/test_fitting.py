"""What a handler gives is what the column holds: in memory at once, as a SELECT gives it after an INSERT, and as it is loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import Dialect
from projection_rebuild.errors import RowError, UnfitValue
from projection_rebuild.replay.row_tables import BlueTables, GreenTables
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.recording import RecordingRows, Unknown
from projection_rebuild.rows.types import row, row_type

EAST = timezone(timedelta(hours=5))
AT = datetime(2026, 3, 4, 5, 6, 7, 123_456)  # noqa: DTZ001 - as a handler may give it
TIE = datetime(1999, 3, 4, 5, 6, 7, 500_000)  # noqa: DTZ001
NIGHT = datetime(2026, 3, 4, 1, 0, 0, 999_999, tzinfo=EAST)
ONE = UUID("12345678-1234-5678-1234-567812345678")
MONEY = [Decimal(each) for each in ("1", "1.5", "0.005", "-0.005", "2.675", "1.115", "1E+2", "123456789.994", "-7.777")]
MOMENTS = [AT, TIE, TIE.replace(year=2027), NIGHT, AT.replace(tzinfo=UTC), date(2026, 3, 4), "2026-03-04T05:06:07.9"]
DOCUMENTS = [
    {"bb": 1, "a": [1, 2.5, None, True], "ccc": {"z": 1, "b": "ü"}},
    {"float": 1e16, "small": 1e-7, "big": 2**70, "exact": Decimal("0.12345678901234567890123")},
    {"at": date(2026, 3, 4), "id": ONE, "t": (1, 2)},
    ["b", {"long": 1, "x": 2}],
    {},
]
FLOATS = [0.1, 1 / 3, 1e16, -2.5, 16_777_217.0, 1234567.0, 3, Decimal("0.25"), "0.5"]
WHOLES = [7, "12", 5.0, Decimal("8.00"), True, " 3 ", -4, "-5"]
TEXTS = ["ab", "ü", "", " a", 7, Decimal("1.50"), ONE, date(2026, 3, 4), "a  ", "007", "1e3", "x'\\\t\n"]


@dataclass(frozen=True)
class Column:
    """One column, and what a handler may give it.

    :param plain: values that SQL by hand would give it as well; the database must make the same of them
    """

    type: str
    promised: Any
    given: Sequence[Any]
    plain: bool = True


COLUMNS: dict[str, list[Column]] = {
    "postgresql": [
        Column("numeric(14,2)", Decimal, MONEY),
        Column("numeric(12,0)", Decimal, MONEY),
        Column("numeric(6,-2)", Decimal, [Decimal("1250"), Decimal("149.9")]),
        Column("numeric", Decimal, [*MONEY, Decimal("1.500")]),
        Column("money_domain", Decimal, MONEY),
        Column("numeric(14,2)", float, [0.125, 1.005, 3], plain=False),
        Column("numeric(14,2)", str, ["0.005", "7", "1E+2"]),
        Column("real", float, FLOATS),
        Column("real", Decimal, [Decimal("0.1"), Decimal("16777217")]),
        Column("double precision", float, FLOATS),
        Column("double precision", Decimal, [Decimal("0.1"), Decimal("0.30")]),
        Column("integer", int, WHOLES, plain=False),
        Column("bigint", str, ["007", "12", 5]),
        Column("numeric", float, FLOATS, plain=False),
        Column("numeric(20,18)", float, [1 / 3, 0.1234567890123456], plain=False),
        Column("integer", float, [1.0, 5], plain=False),
        Column("text", str, TEXTS),
        Column("varchar(4)", str, ["abcd", "abc     ", "ü" * 4]),
        Column("char(4)", str, ["ab", "ab  ", "", "ab      "]),
        Column("uuid", UUID, [ONE, str(ONE).upper(), ONE.hex]),
        Column("uuid", str, [str(ONE).upper(), ONE.hex, ONE]),
        Column("date", date, [date(2026, 3, 4), AT, "2026-03-04"]),
        Column("date", str, ["2026-03-04", "20260304", date(2026, 3, 4)]),
        Column("date", datetime, [AT, NIGHT], plain=False),
        *(Column(f"timestamp({digits})", datetime, MOMENTS) for digits in (0, 3, 6)),
        *(Column(f"timestamptz({digits})", datetime, MOMENTS) for digits in (0, 1, 6)),
        Column("timestamp(0)", str, ["2026-03-04T05:06:07.5", "2026-03-04 05:06:07", "2026-03-04T05:06:07+05:00"]),
        Column("timestamptz", str, ["2026-03-04T05:06:07.5Z", "2026-03-04 05:06:07+00:00", "2026-03-04T05:06:07+05:00"]),
        Column("timestamp", date, [date(2026, 3, 4), AT], plain=False),
        Column("boolean", bool, [True, False, 1, 0], plain=False),
        Column("bytea", bytes, [b"\0\xff\\", bytearray(b"ab"), memoryview(b"cd")]),
        Column("jsonb", dict, DOCUMENTS),
        Column("json", list, DOCUMENTS),
    ],
    "mysql": [
        Column("DECIMAL(14,2)", Decimal, MONEY),
        Column("DECIMAL(12)", Decimal, MONEY),
        Column("DECIMAL(14,2)", float, [0.125, 1.005, 3], plain=False),
        Column("DECIMAL(14,2)", str, ["0.005", "7", "1E+2"]),
        Column("FLOAT", float, FLOATS),
        Column("DOUBLE", float, FLOATS),
        Column("DOUBLE(9,2)", float, [1 / 3, 0.005, 0.015, -0.125, -2.675, 1234567.891, 3], plain=False),
        Column("FLOAT(7,2)", float, [1 / 3, 0.005, 0.015, -0.125, -2.675, 1234.891, 3], plain=False),
        Column("DOUBLE(9,2)", Decimal, [Decimal("0.005"), Decimal("2.675"), Decimal("7")], plain=False),
        Column("DOUBLE", Decimal, [Decimal("0.1"), Decimal("0.30")]),
        Column("INT", int, WHOLES, plain=False),
        Column("BIGINT UNSIGNED", int, [2**64 - 1]),
        Column("BIGINT", str, ["007", "12", 5]),
        Column("VARCHAR(40)", str, TEXTS),
        Column("LONGTEXT", str, TEXTS),
        Column("VARCHAR(4)", str, ["abcd", "ü" * 4]),
        Column("VARCHAR(4)", str, ["abc     "], plain=False),
        Column("CHAR(4)", str, ["ab", "ab  ", ""]),
        Column("ENUM('Open','it''s')", str, ["Open", "open", "IT'S"]),
        Column("SET('a','b','c')", str, ["c,a", "b", ""]),
        Column("CHAR(36)", UUID, [ONE, str(ONE).upper(), ONE.hex], plain=False),
        Column("DATE", date, [date(2026, 3, 4), "2026-03-04"]),
        Column("DATE", date, [AT], plain=False),
        Column("DATE", str, ["2026-03-04", "20260304", date(2026, 3, 4)]),
        *(Column(f"DATETIME({digits})", datetime, MOMENTS) for digits in (0, 3, 6)),
        *(Column(f"TIMESTAMP({digits}) NULL", datetime, MOMENTS) for digits in (0, 6)),
        Column("DATETIME", str, ["2026-03-04T05:06:07.5", "2026-03-04 05:06:07"]),
        Column("TINYINT(1)", bool, [True, False, 1, 0]),
        Column("BIT(1)", bool, [True, False]),
        Column("VARBINARY(9)", bytes, [b"\0\xff\\", bytearray(b"ab")], plain=False),
        Column("BINARY(4)", bytes, [b"ab", b"abcd"]),
        Column("JSON", dict, DOCUMENTS),
    ],
    "sqlite": [
        Column("NUMERIC(14,2)", Decimal, [*MONEY, Decimal("12345678901234567890.5"), Decimal("0.10")]),
        Column("REAL", Decimal, MONEY),
        Column("TEXT", Decimal, MONEY),
        Column("REAL", float, FLOATS),
        Column("NUMERIC", float, FLOATS),
        Column("TEXT", float, [0.1, 1 / 3, 0.1 + 0.2]),
        Column("INTEGER", int, WHOLES, plain=False),
        Column("REAL", int, [7, 2**53 + 1], plain=False),
        Column("TEXT", int, WHOLES, plain=False),
        Column("TEXT", str, TEXTS),
        Column("VARCHAR(2)", str, TEXTS),
        Column("", str, [each for each in TEXTS if isinstance(each, str)]),
        Column(
            "INTEGER", str, ["007", "1e3", " 12 ", "1.50", "a", "", "9223372036854775808", "1e400", "12x", "-.5", "0x10", "1_0"]
        ),
        Column("NUMERIC", str, ["007", "1e3", "1.50", "a", "0.30000000000000004", "+1", "2026-03-04"]),
        Column("REAL", str, ["007", "1e3", "1.50", "a"]),
        Column("TEXT", UUID, [ONE, str(ONE).upper(), ONE.hex], plain=False),
        Column("DATE", date, [date(2026, 3, 4), AT, "2026-03-04"], plain=False),
        Column("DATETIME", datetime, MOMENTS, plain=False),
        Column("TIMESTAMP", str, ["2026-03-04T05:06:07.5", "2026"]),
        Column("BOOLEAN", bool, [True, False, 1, 0]),
        Column("BLOB", bytes, [b"\0\xff\\", bytearray(b"ab"), memoryview(b"cd")], plain=False),
        Column("JSON", dict, DOCUMENTS),
    ],
}
COLUMNS["mariadb"] = [
    *(each for each in COLUMNS["mysql"] if each.type != "JSON"),
    Column("JSON", dict, DOCUMENTS),
    Column("UUID", UUID, [ONE, str(ONE).upper(), ONE.hex]),
    Column("UUID", str, [str(ONE).upper(), ONE.hex, ONE]),
]


@pytest.fixture
def dialect(dialect: Dialect) -> Dialect:
    """Each kind of database."""
    # The driver learns from the server which one it is.
    with dialect.engine.connect():
        pass
    if dialect.database == "postgresql":
        with dialect.engine.begin() as connection:
            connection.exec_driver_sql("CREATE DOMAIN inner_domain AS numeric(14,2)")
            connection.exec_driver_sql("CREATE DOMAIN money_domain AS inner_domain")
    return dialect


_numbers = count()


def one_type(column: Column) -> Any:
    """A row class of a key and this column, in a table of its own."""
    types = {"id": int, "value": column.promised | None}
    return row(f"fitted_{next(_numbers)}", key="id")(type("Fitted", (), {"__annotations__": types, "value": None}))


def create(dialect: Dialect, column: str, table: str) -> None:
    with dialect.engine.begin() as connection:
        options = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" if dialect.engine.dialect.name == "mysql" else ""
        connection.exec_driver_sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, value {column}){options}")


def written(dialect: Dialect, connection: sa.Connection, rows: RowBuffer, source: GreenTables) -> None:
    with dialect.transaction(connection):
        changes = rows.changes()
        if isinstance(source, BlueTables):
            source.write(changes)
        else:
            source.delete(changes)
            source.put(changes)
    rows.settle()


def alike(one: Any, two: Any) -> bool:
    """Equal, of the same classes, in the same order, to the last digit."""
    return type(one) is type(two) and one == two and repr(one) == repr(two)


@pytest.mark.parametrize("source", [GreenTables, BlueTables])
def test_what_is_in_memory_is_what_is_loaded_again(dialect: Dialect, source: type) -> None:
    for column in COLUMNS[dialect.database]:
        kind = one_type(column)
        create(dialect, column.type, row_type(kind).table)
        with dialect.connect() as connection:
            tables = source(dialect, connection, None) if source is BlueTables else source(dialect, connection, None, str)
            rows = RowBuffer(tables)
            for number, each in enumerate([None, *column.given]):
                rows.get_or_add(kind, number)
                rows.end_event()
                # A first one is inserted, one that another has been before is updated.
                rows.get(kind, number).value = column.given[0]
                rows.end_event()
                rows.get(kind, number).value = each
            rows.end_event()
            held = [each.value for each in rows.all(kind)]
            written(dialect, connection, rows, tables)
            rows.forget()
            found = [rows.get(kind, number).value for number in range(len(held))]
            for given, here, there in zip([None, *column.given], held, found, strict=True):
                assert alike(here, there), (column.type, column.promised, given, here, there)
            # Whatever is written once more stays as it is.
            for number, each in enumerate(found):
                rows.get(kind, number).value = each
            assert rows.changes() == []


def test_the_database_makes_the_same_of_it(dialect: Dialect) -> None:
    """By plain SQL, without us: what its own rounding, padding and parsing make of a value."""
    for column in [each for each in COLUMNS[dialect.database] if each.plain]:
        kind = one_type(column)
        table = row_type(kind).table
        by_hand = f"{table}_by_hand"
        create(dialect, column.type, table)
        create(dialect, column.type, by_hand)
        with dialect.connect() as connection:
            tables = GreenTables(dialect, connection, None, str)
            rows, hand = RowBuffer(tables), RowBuffer(GreenTables(dialect, connection, None, "{}_by_hand".format))
            for number, each in enumerate(column.given):
                rows.add(kind(number, each))
                _insert(dialect, connection, by_hand, number, each)
            rows.end_event()
            held = [each.value for each in rows.all(kind)]
            found = [hand.get(kind, number).value for number in range(len(column.given))]
        for given, here, there in zip(column.given, held, found, strict=True):
            assert alike(here, there), (column.type, column.promised, given, here, there)


def _insert(dialect: Dialect, connection: sa.Connection, table: str, number: int, value: Any) -> None:
    """As an application would do it."""
    for kind, bind in dialect.rows.binds.items():
        if type(value) is kind:
            value = bind(value)
    if isinstance(value, (bytearray, memoryview)):
        value = bytes(value)
    mark = "?" if dialect.database == "sqlite" else "%s"
    with dialect.transaction(connection):
        connection.exec_driver_sql(f"INSERT INTO {table} VALUES ({mark}, {mark})", (number, value))


MISFITS: dict[str, list[tuple[str, Any, Any]]] = {
    "postgresql": [
        ("numeric(4,2)", Decimal, Decimal("100")),
        ("varchar(3)", str, "abcd"),
        ("char(3)", str, "abcd"),
        ("uuid", UUID, "no UUID"),
        ("integer", int, "five"),
        ("integer", int, 5.5),
        ("text", str, ["a"]),
        ("text", bool, False),
        ("timestamp", datetime, "yesterday"),
        ("timestamp", datetime, 13579),
        ("boolean", bool, "true"),
        ("bytea", bytes, "ab"),
        ("jsonb", dict, {"x": object()}),
    ],
    "mysql": [
        ("DECIMAL(4,2)", Decimal, Decimal("99.995")),
        ("VARCHAR(3)", str, "abcd"),
        ("BINARY(2)", bytes, b"abc"),
        ("INT", int, True.__class__),
        ("VARCHAR(9)", bool, False),
        ("VARCHAR(9)", float, 1 / 3),
        ("DATETIME", datetime, datetime.max.replace(tzinfo=UTC)),
    ],
    "sqlite": [("INTEGER", int, "five"), ("TEXT", UUID, "no UUID"), ("NUMERIC", Decimal, "much"), ("DATE", date, "soon")],
}
MISFITS["mariadb"] = [each for each in MISFITS["mysql"] if each[0] != "DATETIME"]


def test_what_no_column_of_this_type_holds_is_refused_at_its_event(dialect: Dialect) -> None:
    for declared, promised, value in MISFITS[dialect.database]:
        kind = one_type(Column(declared, promised, []))
        create(dialect, declared, row_type(kind).table)
        with dialect.connect() as connection:
            rows = RowBuffer(GreenTables(dialect, connection, None, str))
            rows.add(kind(1, None))
            rows.end_event()
            rows.get(kind, 1).value = value
            try:
                rows.end_event()
            except UnfitValue as error:
                refused = str(error)
            else:
                pytest.fail(f"{declared} takes {value!r}")
        assert f"value of {row_type(kind).table} " in refused and type(value).__name__ in refused
        assert repr(value) not in refused


def _key_types() -> dict[str, list[tuple[str, Any, Any, Any]]]:
    plain, wide = datetime(2026, 3, 4, 5, 6, 7), datetime(2026, 3, 4, 5, 6, 7, 400_000)  # noqa: DTZ001
    price = (Decimal("1.005"), Decimal("1.01"))
    mysql: list[tuple[str, Any, Any, Any]] = [
        ("DATETIME(0)", datetime, wide, plain),
        ("DECIMAL(10,2)", Decimal, *price),
        ("CHAR(36)", UUID, str(ONE).upper(), ONE),
        ("CHAR(4)", str, "ab ", "ab"),
        ("INT", int, "7", 7),
    ]
    return {
        "postgresql": [
            ("timestamp(0)", datetime, wide, plain),
            ("timestamptz(0)", datetime, wide, plain.replace(tzinfo=UTC)),
            ("numeric(10,2)", Decimal, *price),
            ("uuid", UUID, str(ONE).upper(), ONE),
            ("char(4)", str, "ab ", "ab"),
            ("integer", int, "7", 7),
        ],
        "mysql": mysql,
        "mariadb": [*mysql, ("UUID", UUID, str(ONE).upper(), ONE)],
        "sqlite": [("TEXT", UUID, str(ONE).upper(), ONE), ("INTEGER", int, "7", 7), ("NUMERIC", str, "007", "7")],
    }


KEYS = _key_types()


def key_type(promised: type) -> Any:
    """A row class that is found by a value of this type."""
    types = {"code": promised, "other": promised, "seen": int}
    return row(f"fitted_{next(_numbers)}", key="code", lookups=["other"])(
        type("Fitted", (), {"__annotations__": types, "seen": 0})
    )


@pytest.mark.parametrize("forgets", [False, True], ids=["kept", "forgotten"])
@pytest.mark.parametrize("source", [GreenTables, BlueTables])
def test_a_row_is_found_by_whatever_becomes_its_key(dialect: Dialect, source: type, forgets: bool) -> None:
    for declared, promised, given, held in KEYS[dialect.database]:
        kind = key_type(promised)
        with dialect.engine.begin() as connection:
            options = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4" if dialect.engine.dialect.name == "mysql" else ""
            table = row_type(kind).table
            connection.exec_driver_sql(f"CREATE TABLE {table} (code {declared} PRIMARY KEY, other {declared}, seen int){options}")
        with dialect.connect() as connection:
            tables = source(dialect, connection, None) if source is BlueTables else source(dialect, connection, None, str)
            rows = RowBuffer(tables, complete=not forgets)

            def end(rows: RowBuffer = rows, connection: sa.Connection = connection, tables: Any = tables) -> None:
                rows.end_event()
                if forgets:
                    written(dialect, connection, rows, tables)
                    rows.forget()

            rows.add(kind(given, given))
            end()
            rows.get_or_add(kind, given, other=given).seen += 1
            end()
            rows.get(kind, held).seen += 1
            end()
            for each in rows.where(kind, other=given):
                each.seen += 1
            end()
            probe = RecordingRows(rows)
            with suppress(Unknown):
                probe.get(kind, given).seen += 10
            probe.load_wanted()
            found = rows.find(kind, given)
            assert found == kind(held, held, 3) and alike(found.code, held), declared
            rows.remove(kind, given)
            end()
            assert rows.find(kind, held) is None and rows.where(kind, other=held) == []
            written(dialect, connection, rows, tables)
        with dialect.engine.connect() as connection:
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar() == 0


def test_what_can_be_no_key_is_not_there_and_cannot_be_added() -> None:
    rows, kind = RowBuffer(), key_type(UUID)
    assert rows.find(kind, "no UUID") is None and rows.where(kind, other="no UUID") == []
    rows.remove(kind, "no UUID")
    with pytest.raises(RowError, match="has no row"):
        rows.get(kind, "no UUID")
    for refused in (lambda: rows.get_or_add(kind, "no UUID", other=ONE), lambda: rows.add(kind("no UUID", ONE))):
        with pytest.raises(UnfitValue, match="code of fitted_"):
            refused()
    rows.add(kind(str(ONE), str(ONE).upper()))
    assert rows.get(kind, ONE) is rows.get(kind, ONE.hex) is rows.where(kind, other=ONE)[0]


def test_live_code_sees_that_columns_have_changed(dialect: Dialect) -> None:
    """Over one connection, from one transaction to the next; often enough that a driver prepares its statements."""
    kind = one_type(Column("", Decimal, []))
    table = row_type(kind).table
    create(dialect, "decimal(9,2)", table)
    finer = (
        "ALTER TABLE {0} ALTER value TYPE numeric(9,3)"
        if dialect.database == "postgresql"
        else "ALTER TABLE {0} MODIFY value decimal(9,3)"
    )
    seen: list[Any] = []
    with dialect.engine.connect() as connection:
        for number, statement in enumerate([*[None] * 8, finer, None]):
            with dialect.engine.begin() as another:
                if statement and dialect.database == "sqlite":
                    another.exec_driver_sql(f"DROP TABLE {table}")
                    another.exec_driver_sql(f"CREATE TABLE {table} (id bigint PRIMARY KEY, value text)")
                elif statement:
                    another.exec_driver_sql(statement.format(table))
            tables = BlueTables(dialect, connection, None)
            rows = RowBuffer(tables)
            rows.add(kind(number, Decimal("1.0050")))
            tables.write(rows.changes())
            seen += [each.value for each in rows.all(kind)]
            connection.commit()
    before, after = ("1.005", "1.0050") if dialect.database == "sqlite" else ("1.01", "1.005")
    assert [str(each) for each in seen] == [before] * 8 + [after] * 2
