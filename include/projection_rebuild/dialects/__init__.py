"""The databases that a rebuild works on, one class for each. The SQLAlchemy engine's driver and its server choose the class.

A database's package is imported on first use, so an application needs only its own driver.
"""

from __future__ import annotations

from importlib import import_module

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.errors import UnsupportedDatabase
from projection_rebuild.errors.drivers import trouble_of

_MYSQL, _MARIADB = ("mysql.dialect", "MySQLDialect"), ("mariadb.dialect", "MariaDBDialect")

_DIALECTS = {
    ("postgresql", "psycopg"): ("postgres.dialect", "PostgresDialect"),
    ("mysql", "mysqldb"): _MYSQL,
    ("mariadb", "mysqldb"): _MARIADB,
    ("sqlite", "pysqlite"): ("sqlite.dialect", "SqliteDialect"),
}


def dialect_for(engine: sa.Engine, known_as: str = "the database") -> Dialect:
    """The dialect of an engine.

    A ``mysql`` URL may lead to a MariaDB server. If SQLAlchemy does not know which server it is, this connects once.

    :param known_as: the connection's id, by which messages name it
    :raises UnsupportedDatabase: the database or driver is not supported; the message names those that are
    :raises ConnectionRefused: this has to connect, and the server cannot be reached
    """
    dialect = dialect_class(engine)(engine, known_as)
    if _names(engine) == _MYSQL and engine.dialect.server_version_info is None:
        dialect.reach()
        return dialect_class(engine)(engine, known_as)
    return dialect


def dialect_class(engine: sa.Engine) -> type[Dialect]:
    """The class of an engine's dialect, by what SQLAlchemy knows of the server; this never connects.

    :raises UnsupportedDatabase: as for :func:`dialect_for`
    """
    module, name = _names(engine)
    chosen: type[Dialect] = getattr(import_module(f"{__name__}.{module}"), name)
    return chosen


def _names(engine: sa.Engine) -> tuple[str, str]:
    """The names of the dialect's module and class."""
    location = _DIALECTS.get((engine.dialect.name, engine.dialect.driver))
    if location is None:
        known = ", ".join(f"{name}+{driver}" for name, driver in _DIALECTS)
        raise UnsupportedDatabase(f"{engine.dialect.name}+{engine.dialect.driver} is not supported; use one of {known}")
    # SQLAlchemy sets is_mariadb on its first connection to a server.
    return _MARIADB if getattr(engine.dialect, "is_mariadb", False) else location


__all__ = ["Dialect", "dialect_class", "dialect_for", "trouble_of"]
