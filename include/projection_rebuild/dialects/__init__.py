"""The databases that a rebuild works on: one file per family, chosen by the engine's driver, and imported when it is asked for.

So whoever has but one of them needs the driver of that one only.
"""

from __future__ import annotations

from importlib import import_module

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect
from projection_rebuild.dialects.trouble import trouble_of
from projection_rebuild.errors import UnsupportedDatabase

_DIALECTS = {
    ("postgresql", "psycopg"): ("postgres", "PostgresDialect"),
    ("mysql", "mysqldb"): ("mysql", "MySQLDialect"),
    ("mariadb", "mysqldb"): ("mysql", "MySQLDialect"),
    ("sqlite", "pysqlite"): ("sqlite", "SqliteDialect"),
}


def dialect_for(engine: sa.Engine, known_as: str = "the database") -> Dialect:
    """The dialect of an engine.

    :param known_as: how people know the connection, in messages: its id
    :raises UnsupportedDatabase: a database or driver that is not supported; names those that are
    """
    found = _DIALECTS.get((engine.dialect.name, engine.dialect.driver))
    if found is None:
        known = ", ".join(f"{name}+{driver}" for name, driver in _DIALECTS)
        raise UnsupportedDatabase(f"{engine.dialect.name}+{engine.dialect.driver} is not supported; use one of {known}")
    module, name = found
    made: Dialect = getattr(import_module(f"{__name__}.{module}"), name)(engine, known_as)
    return made


__all__ = ["Dialect", "dialect_for", "trouble_of"]
