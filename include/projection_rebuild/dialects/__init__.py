"""The databases that a rebuild works on: one class for each, chosen by the engine's driver and its server, and imported when it is asked for.

So whoever has but one of them needs the driver of that one only.
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

    A URL of MySQL's leads to MariaDB as well. Unless SQLAlchemy has asked such a server who it is, it is asked now.

    :param known_as: how people know the connection, in messages: its id
    :raises UnsupportedDatabase: a database or driver that is not supported; names those that are
    :raises ConnectionRefused: the server has to be asked and cannot be reached
    """
    dialect = dialect_class(engine)(engine, known_as)
    if _names(engine) == _MYSQL and engine.dialect.server_version_info is None:
        dialect.reach()
        return dialect_class(engine)(engine, known_as)
    return dialect


def dialect_class(engine: sa.Engine) -> type[Dialect]:
    """The class of an engine's dialect, as far as it is known; asks no server.

    :raises UnsupportedDatabase: as :func:`dialect_for`
    """
    module, name = _names(engine)
    found: type[Dialect] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def _names(engine: sa.Engine) -> tuple[str, str]:
    """The module and the class."""
    found = _DIALECTS.get((engine.dialect.name, engine.dialect.driver))
    if found is None:
        known = ", ".join(f"{name}+{driver}" for name, driver in _DIALECTS)
        raise UnsupportedDatabase(f"{engine.dialect.name}+{engine.dialect.driver} is not supported; use one of {known}")
    # SQLAlchemy knows this of each server that it has been connected to.
    return _MARIADB if getattr(engine.dialect, "is_mariadb", False) else found


__all__ = ["Dialect", "dialect_class", "dialect_for", "trouble_of"]
