"""Looking at tables on MySQL and MariaDB, and at who uses them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.dialects.base import Inspector, PreflightProbe, RunTables, TrafficProbe
from projection_rebuild.dialects.mysql import create_table as text
from projection_rebuild.dialects.mysql import session as ours
from projection_rebuild.dialects.mysql.base import ACCESS_DENIED, TABLE_TYPES, MySQLBase, number_of
from projection_rebuild.dialects.mysql.preflight import SIZE, Preflight
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet
from projection_rebuild.rows.shapes import Holds, Shape

_KINDS = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), ColumnKind.WHOLE),
    **dict.fromkeys(("decimal", "float", "double"), ColumnKind.NUMBER),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), ColumnKind.TEXT),
    **dict.fromkeys(("enum", "set"), ColumnKind.ENUM),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), ColumnKind.BYTES),
    **dict.fromkeys(("datetime", "timestamp", "date"), ColumnKind.TIME),
    "json": ColumnKind.JSON,
    "uuid": ColumnKind.UUID,
}

# With the mode of the session that writes: it decides what becomes of digits that are too many.
_SHAPES = """SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION,
       COLLATION_NAME, IS_NULLABLE = 'YES', @@SESSION.sql_mode
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""

HOLDS = {
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint", "year"), Holds.WHOLE),
    **dict.fromkeys(("varchar", "tinytext", "text", "mediumtext", "longtext"), Holds.TEXT),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), Holds.BYTES),
    **dict.fromkeys(("datetime", "timestamp"), Holds.MOMENT),
    "char": Holds.PADDED,
    "enum": Holds.NAMES,
    "set": Holds.SETS,
    "decimal": Holds.DECIMAL,
    "float": Holds.SINGLE,
    "double": Holds.DOUBLE,
    "date": Holds.DATE,
    "uuid": Holds.UUID,
}
"""What a column of each type holds, but for JSON."""

# InnoDB shows the beginning by the clock of the server's system, whatever the session's time zone.
OLDEST_TRANSACTION = f"""SELECT COALESCE(TIMESTAMPDIFF(SECOND, MIN(x.trx_started), CONVERT_TZ(NOW(), '{ours.ZONE}', 'SYSTEM')), 0)
 FROM information_schema.INNODB_TRX x"""
"""The beginning of a query for the age of the oldest transaction; what follows says of which."""

FILES_REFUSED = (1148, 3948, 2068, 4166)
"""What server or client say where files of the client's are not to be loaded."""


class MySQLInspector(MySQLBase, Inspector, TrafficProbe, PreflightProbe):
    """See :class:`Inspector`, :class:`TrafficProbe` and :class:`PreflightProbe`."""

    column_holds: ClassVar[Mapping[str, Holds]]
    """What a column of each type holds."""

    innodb_tables: ClassVar[str]
    """The view of the catalog that has InnoDB's numbers of tables."""

    read_counters: ClassVar[tuple[str, ...]]
    """Queries for how often tables were read; the next one is asked where one gives nothing, or may not be asked."""

    preflights: ClassVar[type[Preflight]]
    """What looks at the server and at our rights there."""

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        return self._table_fact(connection, schema, table, "TABLE_TYPE") in TABLE_TYPES

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        found = self._table_fact(connection, schema, table, "TABLE_TYPE")
        return None if found is None else "table" if found in TABLE_TYPES else str(found).lower()

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        # SQLAlchemy's reflection stumbles over a backtick in a name.
        query = """SELECT COLUMN_NAME FROM information_schema.COLUMNS
                   WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"""
        return [name for (name,) in self._execute(connection, query, schema, table)]

    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        query = """SELECT COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, COLLATION_NAME, IS_NULLABLE = 'YES' FROM information_schema.COLUMNS
                   WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""
        return {
            name: ColumnType(
                _text(column_type),
                _KINDS.get(_text(data_type).lower(), ColumnKind.OTHER),
                collation is None or compares_bytes(collation),
                bool(nullable),
                collation is None or collation.startswith(("utf8mb4", "utf16", "utf32")),
            )
            for name, column_type, data_type, collation, nullable in self._execute(connection, query, schema, table)
        }

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        query = """SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS
                   WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s AND NON_UNIQUE = 0"""
        keys: dict[str, set[str | None]] = {}
        for index, column, prefix in self._execute(connection, query, schema, table):
            keys.setdefault(index, set()).add(column if prefix is None else None)
        # A part that is an expression has no column, and a prefix says nothing about the whole value.
        return [{name for name in names if name is not None} for names in keys.values() if None not in names]

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        found = self._execute(connection, _SHAPES, schema, table).all()
        return {_text(each[0]): self._shape(*map(_text_or_other, each[1:])) for each in found}

    def _shape(
        self,
        name: str,
        column_type: str,
        length: int | None,
        precision: int | None,
        scale: int | None,
        digits: int | None,
        collation: str | None,
        nullable: int,
        mode: str,
    ) -> Shape:
        holds = self.column_holds.get(name.lower(), Holds.OTHER)
        return Shape(
            holds,
            # Of the long ones it is the bytes that are bounded.
            length=length if name.lower() in ("char", "varchar", "binary", "varbinary") else None,
            fills=name.lower() == "binary",
            precision=precision if holds is Holds.DECIMAL else None,
            # DOUBLE(8,2) rounds as well.
            scale=scale if holds in (Holds.DECIMAL, Holds.DOUBLE, Holds.SINGLE) else None,
            digits=digits or 0,
            cuts=self._cuts_fractions(mode.split(",")),
            names=text.listed(column_type) if holds in (Holds.NAMES, Holds.SETS) else (),
            nullable=bool(nullable),
            alike=None if collation is None or compares_bytes(collation) else f"collation {collation}",
        )

    @abstractmethod
    def _cuts_fractions(self, modes: Collection[str]) -> bool:
        """Whether digits of a second that are too many are cut, and not rounded, in a session of these modes."""

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return int(self._table_fact(connection, schema, table, "TABLE_ROWS") or 0)

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return int(self._execute(connection, SIZE, schema, table).scalar_one())

    identity_lost_by = "OPTIMIZE, TRUNCATE or ALTER TABLE"

    def _identities(
        self,
        connection: sa.Connection,
        schema: str | None,
        tables: Sequence[str],
        query: str,
        spelled: Callable[[str], str],
        numbered: str = "{}",
    ) -> dict[str, str | None]:
        """One look for all of them: writers may be waiting.

        :param query: for names in InnoDB's catalog and their numbers; the names follow
        :param spelled: a name as that catalog spells it
        :param numbered: how a number is told
        """
        database = spelled(schema or self._execute(connection, "SELECT DATABASE()").scalar_one())
        names = {f"{database}/{spelled(table)}": table for table in tables}
        among = f"{query} WHERE NAME IN ({', '.join(['%s'] * len(names))})"
        try:
            rows = self._execute(connection, among, *names).all() if names else []
        except sa.exc.DBAPIError as error:
            if number_of(error) == ACCESS_DENIED:
                return dict.fromkeys(tables)
            raise
        found = {names.get(_text(name)): numbered.format(int(number)) for name, number in rows}
        return {table: found.get(table) or self.identity(connection, schema, table) for table in tables}

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # InnoDB's own number stays through renames. CREATE_TIME does not: a foreign key that follows a rename changes it.
        if self._table_fact(connection, schema, table, "TABLE_NAME") is None:
            return None
        database = schema or self._execute(connection, "SELECT DATABASE()").scalar_one()
        name = f"{file_name(database)}/{file_name(table)}"
        # Each partition is a table of its own there.
        query = f"SELECT MIN(TABLE_ID) FROM information_schema.{self.innodb_tables} WHERE NAME = %s OR LEFT(NAME, %s) IN (%s, %s)"
        try:
            found = self._execute(connection, query, name, len(name) + 3, f"{name}#p#", f"{name}#P#").scalar()
        except sa.exc.DBAPIError as error:
            if number_of(error) == ACCESS_DENIED:
                return None
            raise
        return None if found is None else str(found)

    def active_sessions(self, connection: sa.Connection) -> int | None:
        # Those of other workers of ours cannot be told from the application's.
        query = f"""SELECT ID FROM {self._process_list(connection)}
                   WHERE COMMAND IN ('Query', 'Execute') AND DB = DATABASE() AND ID <> CONNECTION_ID()"""
        return len(set(self._execute(connection, query).scalars()) - set(self._sessions.values()))

    @abstractmethod
    def _process_list(self, connection: sa.Connection) -> str:
        """The list of sessions."""

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        names = [each.blue for each in tables]
        marks = ", ".join(["%s"] * len(names))
        for query in self.read_counters:
            found = self._if_allowed(connection, query.format(marks=marks), tables[0].schema, *names)
            if found is not None:
                return int(found)
        return None

    def preflight(self, connection: sa.Connection, run_tables: RunTables) -> list[Finding]:
        look = self.preflights(partial(self._execute, connection))
        return [*look.of_server(), *look.of_tables(run_tables), *self._files(connection)]

    def _files(self, connection: sa.Connection) -> Iterator[Finding]:
        """Whether rows may be written by LOAD DATA; both sides have to allow it. Told by how a file for no table is refused."""
        with suppress(sa.exc.DBAPIError):
            try:
                self._execute(connection, f"LOAD DATA LOCAL INFILE '{os.devnull}' INTO TABLE projection_rebuild_no_such_table")
            except sa.exc.DBAPIError as error:
                if number_of(error) not in FILES_REFUSED:
                    raise
                yield Finding(
                    about="server",
                    problem="LOAD DATA LOCAL is not allowed, so that rows are written by INSERT, which takes about twice as long",
                    remedy="SET GLOBAL local_infile = 1, and local_infile = 1 in the connection",
                )

    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        look = self.preflights(partial(self._execute, connection))
        return list(look.of_events(schema, table))


def compares_bytes(collation: str) -> bool:
    """Whether texts are equal by it only if their bytes are. The others take blanks at the end for nothing, utf8mb4_bin as well."""
    return collation == "utf8mb4_0900_bin" or collation.endswith("_nopad_bin") or collation == "binary"


def _text_or_other(value: Any) -> Any:
    return _text(value) if isinstance(value, bytes) else value


def _text(value: str | bytes) -> str:
    """MySQL's catalogs give some names as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def file_name(name: str) -> str:
    """A name as InnoDB's catalog spells it: what is not a plain letter, digit or underscore is ``@`` and four hex digits.

    Some letters outside ASCII have shorter forms there; such a table is then not found, and has no identity.
    """
    return "".join(each if each.isascii() and (each.isalnum() or each == "_") else f"@{ord(each):04x}" for each in name)
