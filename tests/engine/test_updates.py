"""Many rows changed at once, where more than their key is unique: each becomes what it would have become one by one, or it is an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from include.projection_rebuild.dialects import Dialect, dialect_for
from include.projection_rebuild.dialects.mysql import MySQLDialect
from include.projection_rebuild.rows import Changes, RowBuffer, row, row_type
from include.projection_rebuild.tables import GreenTables, WriteError, split


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
def dialect(database_url: sa.URL) -> Iterator[Dialect]:
    """Each kind of database, with 300 users."""
    made = dialect_for(sa.create_engine(database_url))
    metadata.create_all(made.engine)
    with made.engine.begin() as connection:
        connection.execute(users.insert(), [{"name": f"n{each}", "email": f"e{each}%", "seen": 0} for each in range(300)])
    yield made
    made.engine.dispose()


def change(dialect: Dialect, handler: Callable[[RowBuffer], object]) -> dict[str, tuple[int, str, int]]:
    """What is in the table after it: id, email and seen by name."""
    with dialect.connect() as connection:
        tables = GreenTables(dialect, connection, None, str)
        rows = RowBuffer(tables)
        handler(rows)
        with dialect.transaction(connection):
            tables.delete(rows.changes())
            tables.put(rows.changes())
    return found(dialect)


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


def test_a_circle_within_one_batch_is_an_error_and_changes_nothing(dialect: Dialect) -> None:
    before = found(dialect)

    def swaps(rows: RowBuffer) -> None:
        rows.get(User, "n1").email, rows.get(User, "n2").email = "e2%", "e1%"

    with pytest.raises(WriteError, match="users"):
        change(dialect, swaps)
    assert found(dialect) == before


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("mariadb", "mysql")])
@pytest.mark.parametrize("together", [True, False])
def test_updates_use_up_no_numbers(
    kind: str, together: bool, new_database: Callable[[str], sa.URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the driver's several statements in one message, too.
    made = MySQLDialect(sa.create_engine(new_database(kind), connect_args={"multi_statements": together}))
    metadata.create_all(made.engine)
    with made.engine.begin() as connection:
        connection.execute(users.insert(), [{"name": f"n{each}", "email": f"e{each}", "seen": 0} for each in range(300)])
    monkeypatch.setattr("include.projection_rebuild.dialects.mysql.LONGEST_MESSAGE", 1000)

    def see(rows: RowBuffer) -> None:
        for each in range(300):
            rows.get(User, f"n{each}").seen += each

    assert {name: seen for name, (_, _, seen) in change(made, see).items()} == {f"n{each}": each for each in range(300)}
    assert made._takes_many is together
    with made.connect() as connection:
        assert made._definition(connection, None, "users").counter == 301
    made.engine.dispose()


def test_rows_are_split_by_what_they_take_over() -> None:
    kind = row_type(User)
    before = [("a", "x", 0), ("b", "y", 0), ("c", "z", 0), ("d", "q", 0)]
    after = [("a", "Y ", 1), ("b", "z", 0), ("c", "new", 0), ("d", "q", 1)]
    assert split(Changes(kind, updated=after, before=before), [(1,)]) == ([after[3]], [after[2], after[1], after[0]])
    assert split(Changes(kind, updated=after, before=before), []) == (after, [])
