"""Tables apart from the live ones on SQLite: tables of a new structure in memory, and scratch tables in a file of their own."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from projection_rebuild.dialects.base import SchemaTrial, Scratch, TablesApart, wait_for
from projection_rebuild.dialects.sqlite.catalog import SqliteCatalog
from projection_rebuild.dialects.sqlite.cutover import as_definition
from projection_rebuild.dialects.sqlite.schema_trial import broken_dependents
from projection_rebuild.model.names import TableSet


class SqliteTablesApart(SqliteCatalog, TablesApart):
    """See :class:`TablesApart`."""

    @contextmanager
    def try_schema(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[SchemaTrial]:
        memory = sa.create_engine("sqlite://")
        try:
            with memory.connect() as apart:
                for statement in statements:
                    self._execute(apart, statement)
                created = [table_set for table_set in tables if self._find(apart, table_set.blue)]
                definitions = {table_set.blue: self._written(apart, table_set.blue) for table_set in created}
                unchanged = {name for name, definition in definitions.items() if definition == self._written(connection, name)}
                refusals = list(broken_dependents(connection, list(definitions), statements, views))
                yield SchemaTrial(apart, None, definitions, unchanged, dict(views), refusals)
        finally:
            memory.dispose()

    def _written(self, connection: sa.Connection, table: str) -> str:
        return as_definition(self._table(connection, table), self._indexes(connection, table))

    def bring(self, scratch: Scratch, table: str, position: str, upto: int) -> None:
        with self.connect() as live, scratch.dialect.connect() as connection:
            path = str(self._execute(live, "PRAGMA database_list").first()[2] or "")  # type: ignore[index]
            stored = self._find(live, table)
            # Detached at the end: while it is attached, each transaction makes the writers of that file wait.
            self._execute(connection, "ATTACH DATABASE ? AS live", f"file:{quote(path)}?mode=ro")
            if stored is not None:
                self._execute(connection, stored.sql)
            into = f"INSERT INTO main.{self.quote(table)}" if stored else f"CREATE TABLE main.{self.quote(table)} AS"
            rows = f"SELECT * FROM live.{self.quote(table)} WHERE {self.quote(position)} <= ?"
            self._execute(connection, f"{into} {rows}", upto)
            self._execute(connection, "DETACH DATABASE live")

    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        return [self._table(connection, table.blue).sql, *(index.sql for index in self._indexes(connection, table.blue))]


@contextmanager
def file_apart(name: str) -> Iterator[sa.Engine]:
    """Creates an empty database file for scratch tables, and deletes it at the end of the context.

    :raises TablesBusy: another process still uses the file of this name
    """
    path = Path(tempfile.gettempdir()) / f"{name}.db"
    with _locked(path.with_suffix(".lock")):
        engine = sa.create_engine(f"sqlite:///file:{quote(str(path))}?uri=true", hide_parameters=True)
        # Without fsync: if this process dies, the file is worthless anyway.
        sa.event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA synchronous = OFF"))
        try:
            _remove(path)
            yield engine
        finally:
            engine.dispose()
            _remove(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks a file for one process at a time. The operating system frees the lock when the process ends, also after a crash."""

    def locked() -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    with path.open("w") as file:
        wait_for(locked)
        yield


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
