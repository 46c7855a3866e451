"""Statements are written as a shell takes them; what a driver wants otherwise is changed when they are executed."""

from __future__ import annotations

import pytest

from projection_rebuild.dialects.base import Dialect

AWKWARD = ["100%", "%s", "50 %s off", "%%", "it's %d", 'a "%s" b', "a `%s` b", "%(name)s"]


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("text", AWKWARD)
def test_a_percent_sign_is_one_in_names_and_texts(dialect: Dialect, text: str) -> None:
    wanted = f"SELECT {literal(text)} AS {dialect.quote(text)}, 7 % 4"
    with dialect.connect() as connection:
        without = dialect.execute(connection, wanted)
        assert next(iter(without.keys())) == text
        assert [*without.one()] == [text, 3]
        bound = dialect.execute(connection, f"{wanted}, 7 = {dialect.mark}", [7])
        assert next(iter(bound.keys())) == text
        assert [*bound.one()] == [text, 3, 1]


@pytest.mark.parametrize("text", AWKWARD)
def test_many_rows_go_into_a_column_of_such_a_name(dialect: Dialect, text: str) -> None:
    column = dialect.quote(text)
    with dialect.connect() as connection:
        dialect.run(connection, f"CREATE TEMPORARY TABLE statements ({column} INTEGER PRIMARY KEY)")
        dialect.execute_many(connection, f"INSERT INTO statements ({column}) VALUES ({dialect.mark})", [(1,), (2,)])
        update = f"UPDATE statements SET {column} = {dialect.mark} WHERE {column} = {dialect.mark}"
        dialect.execute_many(connection, update, [(11, 1), (12, 2)])
        found = dialect.execute(connection, f"SELECT {column} FROM statements ORDER BY 1").scalars().all()
        dialect.run(connection, "DROP TABLE statements")
    assert found == [11, 12]
