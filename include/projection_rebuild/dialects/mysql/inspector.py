"""Inspects tables on MySQL and MariaDB, their traffic, and the server's settings."""

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

# With the mode of the session that writes: it decides whether the server cuts or rounds excess digits.
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

# InnoDB shows the beginning in the time zone of the server's system, whatever the session's time zone.
OLDEST_TRANSACTION = f"""SELECT COALESCE(TIMESTAMPDIFF(SECOND, MIN(x.trx_started), CONVERT_TZ(NOW(), '{ours.ZONE}', 'SYSTEM')), 0)
 FROM information_schema.INNODB_TRX x"""
"""The first part of a query for the age of the oldest transaction; the rest selects the transactions."""

FILES_REFUSED = (1148, 3948, 2068, 4166)
"""Errors with which the server or the driver refuses to load a file of the client."""


class MySQLInspector(MySQLBase, Inspector, TrafficProbe, PreflightProbe):
    """See :class:`Inspector`, :class:`TrafficProbe` and :class:`PreflightProbe`."""

    column_holds: ClassVar[Mapping[str, Holds]]
    """What a column of each type holds."""

    innodb_tables: ClassVar[str]
    """The catalog's view with InnoDB's numbers of tables."""

    read_counters: ClassVar[tuple[str, ...]]
    """Queries for the number of reads of tables; if one returns NULL, or is not allowed, the engine tries the next."""

    preflights: ClassVar[type[Preflight]]
    """The class that checks the server and the account's privileges."""

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        return self._table_fact(connection, schema, table, "TABLE_TYPE") in TABLE_TYPES

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        kind = self._table_fact(connection, schema, table, "TABLE_TYPE")
        return None if kind is None else "table" if kind in TABLE_TYPES else str(kind).lower()

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        # SQLAlchemy's reflection fails on a backtick in a name.
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
        # A part that is an expression has no column, and a unique prefix does not identify the whole value.
        return [{name for name in names if name is not None} for names in keys.values() if None not in names]

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        rows = self._execute(connection, _SHAPES, schema, table).all()
        return {_text(row[0]): self._shape(*map(_text_or_other, row[1:])) for row in rows}

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
            # The length of the long types is in bytes.
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
        """Whether a session with these modes cuts excess digits of a second, and does not round them."""

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
        """The identities of several tables by one query, since writers may be waiting.

        :param query: selects names and numbers from InnoDB's catalog; the condition follows
        :param spelled: converts a name to the catalog's spelling
        :param numbered: the format of an identity with a number
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
        identities = {names.get(_text(name)): numbered.format(int(number)) for name, number in rows}
        return {table: identities.get(table) or self.identity(connection, schema, table) for table in tables}

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # InnoDB's own number survives renames. CREATE_TIME does not: a foreign key that follows a rename changes it.
        if self._table_fact(connection, schema, table, "TABLE_NAME") is None:
            return None
        database = schema or self._execute(connection, "SELECT DATABASE()").scalar_one()
        name = f"{file_name(database)}/{file_name(table)}"
        # In that catalog each partition is a table of its own.
        query = f"SELECT MIN(TABLE_ID) FROM information_schema.{self.innodb_tables} WHERE NAME = %s OR LEFT(NAME, %s) IN (%s, %s)"
        try:
            number = self._execute(connection, query, name, len(name) + 3, f"{name}#p#", f"{name}#P#").scalar()
        except sa.exc.DBAPIError as error:
            if number_of(error) == ACCESS_DENIED:
                return None
            raise
        return None if number is None else str(number)

    def active_sessions(self, connection: sa.Connection) -> int | None:
        # The engine cannot distinguish the sessions of its other workers from the application's.
        query = f"""SELECT ID FROM {self._process_list(connection)}
                   WHERE COMMAND IN ('Query', 'Execute') AND DB = DATABASE() AND ID <> CONNECTION_ID()"""
        return len(set(self._execute(connection, query).scalars()) - set(self._sessions.values()))

    @abstractmethod
    def _process_list(self, connection: sa.Connection) -> str:
        """The name of the server's list of sessions."""

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        names = [table.blue for table in tables]
        marks = ", ".join(["%s"] * len(names))
        for query in self.read_counters:
            reads = self._if_allowed(connection, query.format(marks=marks), tables[0].schema, *names)
            if reads is not None:
                return int(reads)
        return None

    def preflight(self, connection: sa.Connection, run_tables: RunTables) -> list[Finding]:
        check = self.preflights(partial(self._execute, connection))
        return [*check.of_server(), *check.of_tables(run_tables), *self._files(connection)]

    def _files(self, connection: sa.Connection) -> Iterator[Finding]:
        """A finding if the server or the driver refuses LOAD DATA.

        It tries to load an empty file into a table that does not exist; the error shows whether files are refused.
        """
        with suppress(sa.exc.DBAPIError):
            try:
                self._execute(connection, f"LOAD DATA LOCAL INFILE '{os.devnull}' INTO TABLE projection_rebuild_no_such_table")
            except sa.exc.DBAPIError as error:
                if number_of(error) not in FILES_REFUSED:
                    raise
                yield Finding(
                    about="server",
                    problem="LOAD DATA LOCAL is not allowed, so the engine writes rows by INSERT, which takes about twice as long",
                    remedy="SET GLOBAL local_infile = 1, and local_infile = 1 in the connection",
                )

    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        check = self.preflights(partial(self._execute, connection))
        return list(check.of_events(schema, table))


def compares_bytes(collation: str) -> bool:
    """Whether texts are equal by a collation only if their bytes are.

    All other collations, utf8mb4_bin too, ignore trailing blanks.
    """
    return collation == "utf8mb4_0900_bin" or collation.endswith("_nopad_bin") or collation == "binary"


def _text_or_other(value: Any) -> Any:
    return _text(value) if isinstance(value, bytes) else value


def _text(value: str | bytes) -> str:
    """A name as text; MySQL's catalogs return some names as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def file_name(name: str) -> str:
    """A name as InnoDB's catalog spells it.

    Each character but ASCII letters, digits and underscores is ``@`` and four hex digits. The catalog has shorter forms
    for some letters outside ASCII; the engine does not find these tables, so they have no identity.
    """
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter == "_") else f"@{ord(letter):04x}" for letter in name
    )
