"""The kinds of databases for ``parametrize``, and statements that a test sends to a database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.dialects.mariadb.dialect import MariaDBDialect
from projection_rebuild.dialects.mysql.dialect import MySQLDialect
from projection_rebuild.dialects.postgres.dialect import PostgresDialect
from projection_rebuild.dialects.sqlite.dialect import SqliteDialect
from tests.conftest import DATABASES, EVERY_STATEMENT, SERVERS

DIALECTS: dict[str, type[Dialect]] = {
    "sqlite": SqliteDialect,
    "postgres": PostgresDialect,
    "mariadb": MariaDBDialect,
    "mysql": MySQLDialect,
}
"""The dialect of each kind of database.

A new kind must be added here and to ``tests/conftest.py``. Then all tests run on it that use the fixtures ``engine`` or
``dialect``, or :func:`having` with a declaration that holds for it.
"""


def of_mariadb(engine: sa.Engine) -> bool:
    """Whether the server is a MariaDB. It connects once, because SQLAlchemy detects this at the first connection."""
    with engine.connect():
        return bool(getattr(engine.dialect, "is_mariadb", False))


def execute(engine: sa.Engine, *statements: str) -> None:
    """Executes statements on one connection, each in its own transaction."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def marked(*kinds: str) -> list[Any]:
    """Kinds of databases for ``parametrize``, each with the mark of its server."""
    return [pytest.param(kind, marks=[getattr(pytest.mark, kind)] if kind in SERVERS else []) for kind in kinds]


def having(**declared: bool) -> list[Any]:
    """Kinds of databases for ``parametrize`` whose dialects declare these values: ``having(one_writer=False)``."""
    return marked(
        *(kind for kind, each in DIALECTS.items() if all(getattr(each, name) is value for name, value in declared.items()))
    )


def on(*kinds: str, among: Sequence[str] = DATABASES) -> list[Any]:
    """Kinds of databases for a fault test's ``parametrize(..., indirect=True)``.

    :param kinds: the kinds that always run; together, the tests of a fault cover all code with them
    :param among: all kinds that can run the test; they run if ``EVERY_STATEMENT`` is set
    """
    chosen = among if EVERY_STATEMENT else kinds
    return marked(*chosen)


def flavour(engine: sa.Engine) -> str:
    """The database's kind, which unlike SQLAlchemy's name distinguishes MariaDB from MySQL."""
    return "mariadb" if of_mariadb(engine) else engine.dialect.name
