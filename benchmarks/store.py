"""The databases of the benchmark: durable servers of its own, and event stores that grow."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.events import COLUMNS, StoredEvent, events
from benchmarks.tables import names
from include.universal.schema import metadata, stored_events
from tests.servers import OwnServer, Server, mariadb_server, mysql_server, postgres_server

SERVERS: dict[str, Callable[..., Server]] = {"postgres": postgres_server, "mariadb": mariadb_server, "mysql": mysql_server}
ENGINES = ("postgres", "mariadb", "mysql", "sqlite")
CHUNK = 50_000
"""Events loaded at a time."""


class Database:
    """One database server, or a folder for SQLite files.

    :ivar kind: one of :data:`ENGINES`
    """

    def __init__(self, kind: str, server: Server | None, folder: Path) -> None:
        self.kind = kind
        self._server = server
        self._folder = folder

    def create(self, name: str) -> sa.Engine:
        """An empty database."""
        if self._server is None:
            return self._sqlite(name)
        url = self._server.create_database(name)
        if self.kind in ("mariadb", "mysql"):
            # For LOAD DATA LOCAL, which whoever loads may use.
            url = url.update_query_dict({"local_infile": "1"})
        return sa.create_engine(url)

    def _sqlite(self, name: str) -> sa.Engine:
        engine = sa.create_engine(f"sqlite:///{self._folder / name}.db")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        return engine


@contextmanager
def database(kind: str) -> Iterator[Database]:
    """A server whose commits wait for the disk, started for the benchmark and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = SERVERS[kind](durable=True) if kind in SERVERS else None
        try:
            yield Database(kind, server, Path(folder))
        finally:
            if isinstance(server, OwnServer):
                server.remove()


class Store:
    """The application's event store and the four read models with the benchmark's events.

    :param size: see :func:`benchmarks.events.events`
    """

    def __init__(self, kind: str, engine: sa.Engine, size: int) -> None:
        self.kind = kind
        self.engine = engine
        self.count = 0
        self._events = events(size)
        # The others would be in the way: foreign keys point from them to the four.
        metadata.create_all(engine, tables=[stored_events, *(metadata.tables[name] for name in names())])

    @property
    def version(self) -> str:
        """The server's own word."""
        query = {"sqlite": "SELECT sqlite_version()", "postgres": "SHOW server_version"}.get(self.kind, "SELECT version()")
        with self.engine.connect() as connection:
            return str(connection.exec_driver_sql(query).scalar_one())

    @property
    def url(self) -> str:
        """With its password, for another process."""
        return self.engine.url.render_as_string(hide_password=False)

    def grow_to(self, count: int) -> None:
        """Loads events until there are so many; the table's indexes are made anew afterwards."""
        with self.engine.begin() as connection:
            for index in stored_events.indexes:
                index.drop(connection)
        while batch := list(islice(self._events, min(CHUNK, count - self.count))):
            with self.engine.begin() as connection:
                LOADERS[self.kind](connection, batch)
            self.count += len(batch)
        with self.engine.begin() as connection:
            for index in stored_events.indexes:
                index.create(connection)
        self.settle(analyze=True)

    def settle(self, *, analyze: bool = False) -> None:
        """Lets the server finish what earlier work has left to do, as far as it can be told to."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in SETTLE[self.kind] + (ANALYZE[self.kind] if analyze else []):
                connection.exec_driver_sql(statement)


SETTLE: dict[str, list[str]] = {
    "postgres": ["CHECKPOINT"],
    "mariadb": [],
    "mysql": [],
    "sqlite": ["PRAGMA wal_checkpoint(TRUNCATE)"],
}
ANALYZE: dict[str, list[str]] = {
    "postgres": ["VACUUM ANALYZE stored_events"],
    "mariadb": ["ANALYZE TABLE stored_events"],
    "mysql": ["ANALYZE TABLE stored_events"],
    "sqlite": ["ANALYZE stored_events"],
}


def _copy(connection: sa.Connection, batch: Sequence[StoredEvent]) -> None:
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY stored_events ({', '.join(COLUMNS)}) FROM STDIN") as copy:
        copy.write(_lines(batch))


def _load_data(connection: sa.Connection, batch: Sequence[StoredEvent]) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(_lines(batch))
        file.flush()
        connection.exec_driver_sql(
            f"LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE stored_events CHARACTER SET utf8mb4 ({', '.join(COLUMNS)})"
        )


def _insert(connection: sa.Connection, batch: Sequence[StoredEvent]) -> None:
    marks = ", ".join("?" * len(COLUMNS))
    connection.exec_driver_sql(f"INSERT INTO stored_events ({', '.join(COLUMNS)}) VALUES ({marks})", [*map(tuple, batch)])


def _lines(batch: Sequence[StoredEvent]) -> str:
    """Text as COPY and LOAD DATA take it; JSON has no tabs and no line ends, only backslashes."""
    return "".join("\t".join(map(str, event)).replace("\\", "\\\\") + "\n" for event in batch)


LOADERS: dict[str, Callable[[sa.Connection, Sequence[StoredEvent]], None]] = {
    "postgres": _copy,
    "mariadb": _load_data,
    "mysql": _load_data,
    "sqlite": _insert,
}
