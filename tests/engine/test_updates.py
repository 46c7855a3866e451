"""Many rows changed at once, where more than their key is unique: each becomes what it would have become one by one, or it is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.dialects.mysql.family import MySQLFamily
from projection_rebuild.errors import LostRows
from projection_rebuild.replay.row_tables import BlueTables, GreenTables, Order, Parked, WriteError, split
from projection_rebuild.rows.buffer import RowBuffer
from projection_rebuild.rows.types import Changes, row, row_type
from tests.engine.harness.databases import marked


@row("users", key="name")
class User:
    name: str
    email: str
    seen: int = 0


metadata = sa.MetaData()
users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(20), unique=True, nullable=False),
    sa.Column("email", sa.String(20), unique=True, nullable=False),
    sa.Column("seen", sa.Integer),
    mysql_engine="InnoDB",
)


@pytest.fixture
def dialect(dialect: Dialect) -> Dialect:
    """Each kind of database, with 300 users."""
    metadata.create_all(dialect.engine)
    with dialect.engine.begin() as connection:
        connection.execute(users.insert(), [{"name": f"n{each}", "email": f"e{each}%", "seen": 0} for each in range(300)])
    return dialect


def change(
    dialect: Dialect, handler: Callable[[RowBuffer], object], source: type[GreenTables] = GreenTables
) -> dict[str, tuple[int, str, int]]:
    """What is in the table after it: id, email and seen by name."""
    with dialect.connect() as connection:
        tables = BlueTables(dialect, connection, None) if source is BlueTables else GreenTables(dialect, connection, None, str)
        rows = RowBuffer(GreenTables(dialect, connection, None, str))
        handler(rows)
        write(dialect, connection, tables, rows)
    return found(dialect)


def write(dialect: Dialect, connection: sa.Connection, tables: GreenTables, rows: RowBuffer) -> None:
    with dialect.transaction(connection):
        tables.delete(rows.changes())
        tables.put(rows.changes())
    rows.settle()


def found(dialect: Dialect) -> dict[str, tuple[int, str, int]]:
    with dialect.engine.connect() as connection:
        return {name: (number, email, seen) for number, name, email, seen in connection.execute(sa.select(users))}


def email_of(number: int) -> str:
    """Some databases do not tell capitals from small letters."""
    return f"{'E' if number % 3 == 0 else 'e'}{number}%"


def renamed(rows: RowBuffer, many: int) -> None:
    """Each takes over what the next one has just given up; the first ones were touched first, for another reason."""
    for each in range(many):
        rows.get(User, f"n{each}").seen += 1
    for each in reversed(range(many)):
        rows.get(User, f"n{each}").email = email_of(each + 1) if each + 1 < many else "new"


@pytest.mark.parametrize("many", [2, 100])
def test_what_one_row_gives_up_another_one_takes_over(dialect: Dialect, many: int) -> None:
    before = found(dialect)
    after = change(dialect, lambda rows: renamed(rows, many))
    assert {name: each for name, each in after.items() if int(name[1:]) >= many} == {
        name: each for name, each in before.items() if int(name[1:]) >= many
    }
    for each in range(many):
        assert after[f"n{each}"] == (before[f"n{each}"][0], email_of(each + 1) if each + 1 < many else "new", 1)


def test_a_row_that_takes_what_another_one_keeps_is_an_error_and_changes_neither(dialect: Dialect) -> None:
    before = found(dialect)

    def takes(rows: RowBuffer) -> None:
        for each in range(50):
            rows.get(User, f"n{each}").seen += 1
        rows.get(User, "n7").email = "e250%"

    with pytest.raises(WriteError, match="users"):
        change(dialect, takes)
    assert found(dialect) == before


def in_circles(rows: RowBuffer) -> None:
    """Two exchange their addresses, three hand theirs on, one takes over what the fourth gives up; another one is changed otherwise."""
    for name, email in {"n1": "E2%", "n2": "e1%", "n3": "e4%", "n4": "e5%", "n5": "e3%", "n6": "e7%", "n7": "new"}.items():
        rows.get(User, name).email = email
    rows.get(User, "n8").seen = 1


@pytest.mark.parametrize("source", [GreenTables, BlueTables])
def test_rows_in_a_circle_get_what_they_exchange(dialect: Dialect, source: type) -> None:
    before = found(dialect)
    after = change(dialect, in_circles, source)
    exchanged = {1: "E2%", 2: "e1%", 3: "e4%", 4: "e5%", 5: "e3%", 6: "e7%", 7: "new"}
    assert after == {
        name: (number, exchanged.get(int(name[1:]), email), int(name == "n8")) for name, (number, email, _) in before.items()
    }


@row("seats", key="id")
class Seat:
    id: int
    number: int
    letter: str | None
    price: Decimal
    day: date


@pytest.mark.parametrize("source", [GreenTables, BlueTables])
def test_a_circle_of_values_of_any_type_leaves_no_trace(dialect: Dialect, source: type) -> None:
    options = " ENGINE=InnoDB" if dialect.database in ("mysql", "mariadb") else ""
    with dialect.engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE seats (id int PRIMARY KEY, number bigint NOT NULL UNIQUE, letter varchar(1), price decimal(9,2) NOT NULL UNIQUE, "
            f"day date NOT NULL, UNIQUE (letter, day)){options}"
        )
    with dialect.connect() as connection:
        tables = source(dialect, connection, None) if source is BlueTables else source(dialect, connection, None, str)
        given = [Seat(each, 10 + each, "abc"[each], Decimal(each), date(2026, 1, 1 + each)) for each in range(3)]
        rows = RowBuffer(tables)
        for each in given:
            rows.add(replace(each))
        write(dialect, connection, tables, rows)
        for each in range(3):
            taken = given[(each + 1) % 3]
            seat = rows.get(Seat, each)
            seat.number, seat.letter, seat.price, seat.day = taken.number, taken.letter, taken.price, taken.day
        wanted = [replace(given[(each + 1) % 3], id=each) for each in range(3)]
        write(dialect, connection, tables, rows)
        rows.forget()
        assert [rows.get(Seat, each) for each in range(3)] == wanted


@pytest.mark.parametrize("many", [5, 100])
@pytest.mark.parametrize("source", [GreenTables, BlueTables])
@pytest.mark.parametrize("one_key", [False, True])
def test_a_write_that_meets_no_row_is_an_error_and_changes_nothing(
    dialect: Dialect, many: int, source: type, one_key: bool
) -> None:
    if one_key:
        with dialect.engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE plain AS SELECT name, seen FROM users")
            connection.exec_driver_sql("CREATE UNIQUE INDEX plain_name ON plain (name)")
    kind: type[User] | type[Plain] = Plain if one_key else User
    table = "plain" if one_key else "users"

    def lose(rows: RowBuffer, *, remove: bool) -> None:
        for each in range(many):
            rows.get(kind, f"n{each}").seen += 1
        if remove:
            for each in range(many):
                rows.remove(kind, f"n{each}")
        with dialect.engine.begin() as other:
            other.exec_driver_sql(f"DELETE FROM {table} WHERE name = 'n3'")

    for remove in (False, True):
        with pytest.raises(LostRows, match=rf"{'delete' if remove else 'update'} 1 of {many} rows of {table}"):
            change(dialect, lambda rows, remove=remove: lose(rows, remove=remove), source)  # type: ignore[misc]
        with dialect.engine.begin() as connection:
            seen = connection.exec_driver_sql(f"SELECT count(*), sum(seen) FROM {table}").one()
            assert tuple(map(int, seen)) == (299, 0)
            rest = ", 'e3%', 0" if not one_key else ", 0"
            columns = "name, email, seen" if not one_key else "name, seen"
            connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ('n3'{rest})".replace("%", "%%"))


@row("plain", key="name")
class Plain:
    name: str
    seen: int


def test_children_that_went_with_their_parent_are_no_lost_rows(dialect: Dialect) -> None:
    options = " ENGINE=InnoDB" if dialect.database in ("mysql", "mariadb") else ""
    with dialect.engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE homes (id int PRIMARY KEY){options}")
        connection.exec_driver_sql(
            "CREATE TABLE plain (name varchar(9) PRIMARY KEY, seen int, "
            f"FOREIGN KEY (seen) REFERENCES homes (id) ON DELETE CASCADE){options}"
        )
        connection.exec_driver_sql("INSERT INTO homes VALUES (1)")
        connection.exec_driver_sql("INSERT INTO plain VALUES ('a', 1)")
    with dialect.connect() as connection:
        tables = BlueTables(dialect, connection, None)
        rows = RowBuffer(tables)
        rows.remove(Plain, "a")
        rows.remove(Home, 1)
        write(dialect, connection, tables, rows)
    with dialect.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM plain").scalar() == 0


@row("homes", key="id")
class Home:
    id: int


@pytest.mark.parametrize("kind", marked("mariadb", "mysql"))
@pytest.mark.parametrize("together", [True, False])
def test_updates_use_up_no_numbers(
    kind: str, together: bool, new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the driver's several statements in one message, too.
    made = dialect_for(sa.create_engine(new_database(kind), connect_args={"multi_statements": together}))
    assert isinstance(made, MySQLFamily)
    metadata.create_all(made.engine)
    with made.engine.begin() as connection:
        connection.execute(users.insert(), [{"name": f"n{each}", "email": f"e{each}", "seen": 0} for each in range(300)])
    monkeypatch.setattr("projection_rebuild.dialects.mysql.row_store.LONGEST_MESSAGE", 1000)

    def see(rows: RowBuffer) -> None:
        for each in range(300):
            rows.get(User, f"n{each}").seen += each

    assert {name: seen for name, (_, _, seen) in change(made, see).items()} == {f"n{each}": each for each in range(300)}
    assert made.takes_many is together
    with made.connect() as connection:
        assert made._definition(connection, None, "users").counter == 301
    made.engine.dispose()


def test_rows_are_split_by_what_they_take_over() -> None:
    kind = row_type(User)
    before = [("a", "x", 0), ("b", "y", 0), ("c", "z", 0), ("d", "q", 0)]
    after = [("a", "Y ", 1), ("b", "z", 0), ("c", "new", 0), ("d", "q", 1)]
    assert split(Changes(kind, updated=after, before=before), [(1,)]) == Order([after[3]], [], [after[2], after[1], after[0]])
    assert split(Changes(kind, updated=after, before=before), []) == Order(after, [], [])
    round_about = [("a", "y", 0), ("b", "z", 0), ("c", "x", 0), ("d", "q", 1)]
    assert split(Changes(kind, updated=round_about, before=before), [(1,)]) == Order(
        [round_about[3]], [Parked(("a",), [(1,)])], [round_about[2], round_about[1], round_about[0]]
    )


def test_many_circles_cost_no_more_than_one() -> None:
    kind, many = row_type(User), range(40_000)
    before = [(f"n{each}", f"e{each}", 0) for each in many]
    exchanged = [(f"n{each}", f"e{each ^ 1}", 0) for each in many]
    order = split(Changes(kind, updated=exchanged, before=before), [(1,)])
    assert (len(order.parked), len(order.tied), order.free) == (20_000, 40_000, [])
    chain = split(Changes(kind, updated=[(f"n{each}", f"e{each + 1}", 0) for each in many], before=before), [(1,)])
    assert not chain.parked and chain.tied[0] == ("n39999", "e40000", 0)


@row("codes", key="id")
class Code:
    id: int
    code: str
    seen: int = 0


TOLD_APART = {"mysql": " COLLATE utf8mb4_bin"}
SIXTEEN = dict(enumerate("0123456789abcdef"))
TAKEN_OVER: dict[str, tuple[str, str, dict[int, str], list[tuple[int, str | None]]]] = {
    # To many a collation an é is an e.
    "accents": ("varchar(9)", "", {1: "é", 2: "z"}, [(2, None), (1, "x"), (2, "e")]),
    "letters of either case": (
        "varchar(9){apart}",
        "",
        {3: "c", 1: "a", 2: "A", 4: "q"},
        [(3, None), (1, None), (2, None), (4, "z"), (1, "q"), (2, "y"), (3, "a")],
    ),
    "a circle of single letters": ("varchar(1)", "", SIXTEEN, [(0, "z"), (1, "0"), (0, "1")]),
    "unique among some": ("varchar(9)", "seen >= 0", {1: "a", 2: "b"}, [(1, "x"), (2, "a"), (1, "b")]),
}


@pytest.mark.parametrize("case", TAKEN_OVER)
def test_it_is_the_database_that_says_which_values_are_one(dialect: Dialect, case: str) -> None:
    of, some, before, steps = TAKEN_OVER[case]
    if some and dialect.engine.dialect.name == "mysql":
        # It has no such index.
        some = ""
    where = f" WHERE {some}" if some else ""
    wanted = dict(before)
    with dialect.engine.begin() as connection:
        apart = TOLD_APART.get(connection.dialect.name, "")
        connection.exec_driver_sql(f"CREATE TABLE codes (id int PRIMARY KEY, code {of.format(apart=apart)} NOT NULL, seen int)")
        connection.exec_driver_sql(f"CREATE UNIQUE INDEX codes_code ON codes (code){where}")
        for number, code in before.items():
            connection.execute(sa.text("INSERT INTO codes VALUES (:number, :code, 0)"), {"number": number, "code": code})
    with dialect.connect() as connection:
        tables = GreenTables(dialect, connection, None, str)
        rows = RowBuffer(GreenTables(dialect, connection, None, str))
        for number, code in steps:
            found = rows.get(Code, number)
            found.seen += 1
            found.code = wanted[number] = code or found.code
        write(dialect, connection, tables, rows)
        assert dict(connection.exec_driver_sql("SELECT id, code FROM codes").all()) == wanted  # type: ignore[arg-type]
