"""Databases as tests name them, and statements that a test sends to one."""

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
"""The kinds of databases. A new one is added here and to ``tests/conftest.py``, and inherits the tests of all that it has: those that ask
for ``engine`` or ``dialect``, and those for :func:`having`."""


def of_mariadb(engine: sa.Engine) -> bool:
    """Whether the server is a MariaDB; SQLAlchemy learns it at the first connection."""
    with engine.connect():
        return bool(getattr(engine.dialect, "is_mariadb", False))


def execute(engine: sa.Engine, *statements: str) -> None:
    """Statements on one connection, each of which commits by itself."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def marked(*kinds: str) -> list[Any]:
    """Databases to be named in ``parametrize``, each with the mark of its server."""
    return [pytest.param(kind, marks=[getattr(pytest.mark, kind)] if kind in SERVERS else []) for kind in kinds]


def having(**declared: bool) -> list[Any]:
    """The kinds of databases whose dialects declare this, to be named in ``parametrize``: ``having(one_writer=False)``."""
    return marked(
        *(kind for kind, each in DIALECTS.items() if all(getattr(each, name) is value for name, value in declared.items()))
    )


def on(*kinds: str, among: Sequence[str] = DATABASES) -> list[Any]:
    """Databases to be named in ``parametrize(..., indirect=True)``.

    :param kinds: where a fault is tried always; between them, all faults of a kind meet all code
    :param among: where it can be tried
    """
    chosen = among if EVERY_STATEMENT else kinds
    return marked(*chosen)


def flavour(engine: sa.Engine) -> str:
    """The database's kind, MariaDB told from MySQL."""
    return "mariadb" if of_mariadb(engine) else engine.dialect.name
