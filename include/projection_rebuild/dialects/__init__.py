"""The databases that a rebuild works on: one file per family, chosen by the engine's driver."""

from __future__ import annotations

import sqlalchemy as sa

from include.projection_rebuild.dialects.base import Dialect
from include.projection_rebuild.dialects.mysql import MySQLDialect
from include.projection_rebuild.dialects.postgres import PostgresDialect
from include.projection_rebuild.dialects.sqlite import SqliteDialect
from include.projection_rebuild.errors import RebuildError

_DIALECTS: dict[tuple[str, str], type[Dialect]] = {
    ("postgresql", "psycopg"): PostgresDialect,
    ("mysql", "mysqldb"): MySQLDialect,
    ("mariadb", "mysqldb"): MySQLDialect,
    ("sqlite", "pysqlite"): SqliteDialect,
}


def dialect_for(engine: sa.Engine) -> Dialect:
    """The dialect of an engine.

    :raises RebuildError: a database or driver that is not supported; names those that are
    """
    found = _DIALECTS.get((engine.dialect.name, engine.dialect.driver))
    if found is None:
        known = ", ".join(f"{name}+{driver}" for name, driver in _DIALECTS)
        raise RebuildError(f"{engine.dialect.name}+{engine.dialect.driver} is not supported; use one of {known}")
    return found(engine)


__all__ = ["Dialect", "MySQLDialect", "PostgresDialect", "SqliteDialect", "dialect_for"]
