"""docs/reference/sessions.md is what the code does, and speaks of each variable that a server's sessions have."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.mysql import session as mysql_session
from tests.engine.harness.session_docs import PAGE, SETS, rendered, section, unclassified

FAMILY = "MySQL and MariaDB"


@pytest.mark.parametrize("heading", SETS)
def test_the_page_shows_what_is_set(heading: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert rendered(SETS[heading]) in text, (
        f"put the settings of {heading} into docs/reference/sessions.md:\n{rendered(SETS[heading])}"
    )


def test_the_page_shows_what_becomes_of_sql_mode() -> None:
    text = section(FAMILY)
    always = ", ".join(f"`{each}`" for each in mysql_session.MODES)
    assert f"Of `sql_mode` always on: {always}." in " ".join(text.split())
    for mode, what in (mysql_session.STORING_MODES | mysql_session.READING_MODES).items():
        assert f"| `{mode}` | {what} |" in text
    compared = ", ".join(f"`{each}`" for each in mysql_session.STORING_MODES)
    assert f"({compared})" in " ".join(section("The application's session").split())


@pytest.mark.parametrize("heading", ["PostgreSQL", FAMILY, "SQLite"])
def test_a_variable_that_nobody_has_thought_of_is_noticed(heading: str) -> None:
    assert unclassified(heading, ["a_new_variable"]) == ["a_new_variable"]


@pytest.mark.postgres
def test_every_variable_of_a_session_on_postgresql_is_spoken_of(postgres_url: sa.URL) -> None:
    query = "SELECT name FROM pg_settings WHERE context IN ('user', 'superuser') AND name NOT LIKE '%%.%%'"
    with sa.create_engine(postgres_url, poolclass=sa.NullPool).connect() as connection:
        names = list(connection.exec_driver_sql(query, ()).scalars())
    assert len(names) > 150
    assert unclassified("PostgreSQL", names) == []


NO_SESSION_VALUE, READ_ONLY_EVERYWHERE = 1229, 1238


@pytest.mark.mysql
def test_every_variable_of_a_session_on_mysql_is_spoken_of(mysql_url: sa.URL) -> None:
    names = []
    with sa.create_engine(mysql_url, poolclass=sa.NullPool).connect() as connection:
        for name in [row[0] for row in connection.exec_driver_sql("SHOW SESSION VARIABLES")]:
            # Older servers have no list that says which of them a session has for itself.
            try:
                connection.exec_driver_sql(f"SET SESSION {name} = @@SESSION.{name}")
            except sa.exc.DBAPIError as error:
                if error.orig is not None and error.orig.args[0] in (NO_SESSION_VALUE, READ_ONLY_EVERYWHERE):
                    continue
            names.append(name)
    assert len(names) > 130
    assert unclassified(FAMILY, names) == []


@pytest.mark.mariadb
def test_every_variable_of_a_session_on_mariadb_is_spoken_of(mariadb_url: sa.URL) -> None:
    query = "SELECT LOWER(VARIABLE_NAME) FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_SCOPE LIKE 'SESSION%%'"
    with sa.create_engine(mariadb_url, poolclass=sa.NullPool).connect() as connection:
        names = list(connection.exec_driver_sql(query).scalars())
    assert len(names) > 180
    assert unclassified(FAMILY, names) == []


def test_every_pragma_of_sqlite_is_spoken_of() -> None:
    with sqlite3.connect(":memory:") as connection:
        names = [name for (name,) in connection.execute("PRAGMA pragma_list")]
    assert len(names) > 50
    assert unclassified("SQLite", names) == []
