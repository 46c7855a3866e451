"""What MySQL and MariaDB have in common: every DDL statement commits by itself, so a switch is one RENAME TABLE behind a fence."""

from __future__ import annotations

import hashlib
import math
import os
import random
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Container, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar

import sqlalchemy as sa
from MySQLdb.cursors import SSCursor
from sqlalchemy.dialects import mysql

from projection_rebuild.bulk import FORMATS, as_text, slices
from projection_rebuild.column_kinds import ColumnKind, ColumnType
from projection_rebuild.dialects import mysql_connection as connecting
from projection_rebuild.dialects import mysql_rehearsal as rehearsal
from projection_rebuild.dialects import mysql_session as ours
from projection_rebuild.dialects import mysql_structure as structure
from projection_rebuild.dialects import mysql_text as text
from projection_rebuild.dialects.base import Dialect, Fence, Listed, Refusal, Scratch, Surroundings, Trial
from projection_rebuild.dialects.mysql_carried import carried_over, definitions
from projection_rebuild.dialects.mysql_hanging import TRIGGERS_OF
from projection_rebuild.dialects.mysql_preflight import SIZE, Preflight
from projection_rebuild.dialects.session import Setting
from projection_rebuild.errors import CloneError, ConnectionRefused, SessionError, SettleTimeout, changed_since
from projection_rebuild.findings import Carried, Finding
from projection_rebuild.names import Form, TableSet
from projection_rebuild.rows import RowType, Values
from projection_rebuild.shapes import Holds, Shape
from projection_rebuild.trouble import Kind
from projection_rebuild.values import PORTABLE_BINDS, bound, plain_type

ACCESS_DENIED, TABLE_ACCESS_DENIED, NO_SUCH_THREAD, NO_SUCH_TABLE = 1227, 1142, 1094, 1146
SYNTAX_ERROR = 1064

REHEARSAL = timedelta(seconds=10)
"""For how long a plan waits for another one that rehearses its switch."""

READ = "projection_rebuild_read"
"""In a connection's ``info``: the definitions that the statements of a switch were made from, so that they are read but once while
writers wait."""

CHILDREN = """
SELECT DISTINCT TABLE_SCHEMA = REFERENCED_TABLE_SCHEMA, TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME FROM information_schema.KEY_COLUMN_USAGE
 WHERE REFERENCED_TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND REFERENCED_TABLE_NAME = %s"""

UNCHECKED = ("SET SESSION foreign_key_checks = 0", "SET SESSION foreign_key_checks = 1")
"""What stands around statements that add foreign keys without reading the table: its rows have been looked at before."""

TABLE_TYPES = ("BASE TABLE", "SYSTEM VERSIONED")

_AS_IT_STANDS = (
    "SET @projection_rebuild_mode = @@SESSION.sql_mode, SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'",
    "SET SESSION sql_mode = @projection_rebuild_mode",
)
"""What stands around a statement that copies rows into a table like theirs."""

_BACKTICKS = (
    f"SET @projection_rebuild_mode = @@SESSION.sql_mode, SESSION sql_mode = {ours.sql_mode(without=['ANSI_QUOTES'])}",
    "SET SESSION sql_mode = @projection_rebuild_mode",
)
"""What stands around a statement that is to show names in backticks, whatever the server's mode says."""

_IN_UTC = (
    f"SET @projection_rebuild_zone = @@SESSION.time_zone, SESSION time_zone = '{ours.ZONE}'",
    "SET SESSION time_zone = @projection_rebuild_zone",
)
"""What stands around the work in a session of the application."""

ROW_FORMATS = ("compact", "dynamic", "redundant")
"""Those that a table can have without saying so."""

FILES_REFUSED = (1148, 3948, 2068, 4166)
"""What server or client say where files of the client's are not to be loaded."""

MANY_ROWS = 200
"""From here on a file is worth its trouble."""

MANY_UPDATES = 20
"""From here on it is worth a look whether there is a faster way."""

LONGEST_MESSAGE = 64 * 1024
"""Bytes in one message of several statements, as the driver does it for those that insert; a single one may be longer."""

_FORMATS = {**FORMATS, bool: lambda value: "1" if value else "0"}

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

LiveAndOld = tuple[text.Keyed, text.Keyed]

Check = Callable[[sa.Connection, TableSet, set[str]], Iterator[str]]
"""Tells what of a table of a run cannot be carried; the run's tables come last."""


class MySQLFamily(Dialect):
    """See :class:`Dialect`; statements as they were checked on MySQL 8 and 9 and MariaDB 10.11.

    What only one of the two servers does, or does in another way, is in a class of its own beside this one.
    """

    # Where the server has no time limit for a lock, a watchdog of ours cancels the statement that waits.
    refusals = frozenset({Kind.BUSY, Kind.CANCELLED})
    max_identifier = text.LONGEST_NAME
    ddl_commits = True
    begin = "START TRANSACTION"
    reads_offsets = False
    # The driver would leave an offset out; columns know none, and our sessions are in UTC.
    binds = PORTABLE_BINDS | {
        datetime: lambda value: value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value,
        # What is no number the driver would write as the name of a column; as a text it is a value that the column refuses.
        Decimal: lambda value: value if value.is_finite() else str(value),
    }

    own_settings: ClassVar[Sequence[Setting]]
    """The settings of our sessions that the other server does not know."""

    column_holds: ClassVar[Mapping[str, Holds]]
    """What a column of each type holds."""

    innodb_tables: ClassVar[str]
    """The view of the catalog that has InnoDB's numbers of tables."""

    read_counters: ClassVar[tuple[str, ...]]
    """Queries for how often tables were read; the next one is asked where one gives nothing, or may not be asked."""

    open_snapshots: ClassVar[str]
    """A query for the transactions of others that go on reading from one snapshot."""

    preflights: ClassVar[type[Preflight]]

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        super().__init__(engine, known_as)
        self._own_sessions = connecting.OwnSessions(engine)
        self._takes_files = True
        self._takes_many = True

    def quote(self, name: str) -> str:
        # In backticks, which are right in any sql_mode.
        return "`" + name.replace("`", "``").replace("%", "%%") + "`"

    # Connections ------------------------------------------------------------------------------------------------

    def _open(self) -> sa.Connection:
        self._own_sessions.note_what_is_asked()
        return super()._open()

    def why_not_connected(self, error: BaseException) -> Refusal:
        return connecting.why_not_connected(error)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        return self._own_sessions.why_not(connection)

    def set_up(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_character_set("utf8mb4")
        # With completion_type = CHAIN, whoever has ended a transaction here before us has begun another one.
        self._execute(connection, "ROLLBACK AND NO CHAIN NO RELEASE")
        for statement in self._settings(connection):
            self._execute(connection, statement)

    def session(self, connection: sa.Connection) -> list[str]:
        return ["SET NAMES utf8mb4", *self._settings(connection)]

    def _settings(self, connection: sa.Connection) -> list[str]:
        made = ours.statement(self.own_settings, self._version(connection))
        return ["SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", made]

    def check_live(self, connection: sa.Connection) -> None:
        for problem in ours.live_problems(partial(self._execute, connection)):
            raise SessionError(problem)

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        self._execute(connection, _IN_UTC[0])
        with ending(lambda: self._execute(connection, _IN_UTC[1])):
            yield

    def session_id(self, connection: sa.Connection) -> int:
        return int(self._execute(connection, "SELECT CONNECTION_ID()").scalar_one())

    def cancel(self, session_id: int) -> None:
        try:
            with self.connect() as connection:
                self._execute(connection, f"KILL QUERY {session_id}")
        except sa.exc.DBAPIError as error:
            if number_of(error) != NO_SUCH_THREAD:
                raise

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"SET SESSION lock_wait_timeout = {ours.TABLE_LOCK_WAIT}")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"SET SESSION lock_wait_timeout = {max(1, math.ceil(timeout.total_seconds()))}")

    # Looking at tables ------------------------------------------------------------------------------------------

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        return self._table_fact(connection, schema, table, "TABLE_TYPE") in TABLE_TYPES

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        # SQLAlchemy's reflection stumbles over a backtick in a name.
        query = """SELECT COLUMN_NAME FROM information_schema.COLUMNS
                   WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"""
        return [name for (name,) in self._execute(connection, query, schema, table)]

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

    @property
    def refuses(self) -> tuple[str, ...]:
        return tuple(self._checks)

    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        names = {each.blue for each in tables}
        checks = self._checks.values()
        return [finding for table in tables for check in checks for finding in check(connection, table, names)]

    @property
    def _checks(self) -> dict[str, Check]:
        return {
            "trigger": self._triggers,
            "foreign key of another table": self._children,
            "storage engine or history": self._histories,
            "long constraint": self._long_names,
            **self._own_checks,
            "taken name": self._taken,
            "taken name of a new foreign key": self._taken_anew,
        }

    @property
    def _own_checks(self) -> dict[str, Check]:
        """Those of this server alone."""
        return {}

    def _triggers(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        for (name,) in self._execute(connection, TRIGGERS_OF, table.schema, table.blue):
            yield (
                f"{table.blue}: the trigger {name} cannot be moved to the new table: its name is the schema's, this server renames no "
                "triggers, and each of its statements commits by itself, so that for a moment it would fire twice or not at all. Let "
                "the projector or the application do what it does; or drop it before the rebuild, and make it again after"
            )

    def _children(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        for beside, schema, child, name in self._execute(connection, CHILDREN, table.schema, table.blue):
            if not beside or child not in run:
                yield (
                    f"{table.blue}: the foreign key {name} of {child if beside else f'{schema}.{child}'} follows a rename, and no statement "
                    f"renames {table.blue} and points it to the new table at once: until a second one, inserts would fail or rows lose "
                    f"their parents. Rebuild {child} in the same run (choose its projector too, or 'rebuild dependents'), or drop the "
                    "foreign key"
                )

    def _histories(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        engine, kind = (self._table_fact(connection, table.schema, table.blue, fact) for fact in ("ENGINE", "TABLE_TYPE"))
        if engine != "InnoDB":
            yield f"{table.blue}: its storage engine {engine} has no transactions; convert it to InnoDB"
        if kind == "SYSTEM VERSIONED":
            yield (
                f"{table.blue}: the history of its rows (WITH SYSTEM VERSIONING) would stay on the retired table, since no event says "
                "when a row was changed; drop the versioning, or keep the history in a table that is not rebuilt"
            )

    def _long_names(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        """Names of the server's own kind are changed in a rename, and have to fit then too."""
        blue = self._definition(connection, table.schema, table.blue)
        for kind, names in (("ibfk", blue.foreign_keys()), ("chk", self._renamed_checks(blue))):
            longest = table.old if kind == "ibfk" else max(table.old, table.green, key=len)
            for name in (each.name for each in names):
                number = text.generated(name, table.blue, kind)
                if number and len(f"{longest}_{kind}_{number}") > text.LONGEST_NAME:
                    yield (
                        f"{table.blue}: the constraint {name} would be called {longest}_{kind}_{number} after a rename, which is too long "
                        "a name here; give it a name of your own"
                    )
                elif kind == "ibfk" and text.meanwhile(name) is None:
                    yield f"{table.blue}: there is no name of {text.LONGEST_NAME} letters like that of {name}; give it a shorter one"

    @abstractmethod
    def _renamed_checks(self, table: text.Definition) -> Sequence[text.Check]:
        """The CHECKs that the server may call otherwise when their table is renamed."""

    def _taken(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        for name in (table.green, table.old):
            kind = self._table_fact(connection, table.schema, name, "TABLE_TYPE")
            if kind is not None and kind not in TABLE_TYPES:
                yield f"{table.blue}: the rebuild needs the name {name}, which is taken by the {str(kind).lower()} of this name; rename it"

    def carried(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Carried]:
        query = partial(self._execute, connection)
        return [
            each
            for table in tables
            for each in carried_over(query, table, self._definition(connection, table.schema, table.blue))
        ]

    def _taken_anew(self, connection: sa.Connection, table: TableSet, run: set[str]) -> Iterator[str]:
        """Names of foreign keys are the schema's; a new structure may want one that is somebody else's."""
        query = """SELECT TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS
                   WHERE CONSTRAINT_SCHEMA = COALESCE(%s, DATABASE()) AND CONSTRAINT_NAME = %s AND CONSTRAINT_TYPE = 'FOREIGN KEY'"""
        for key in self._wanted(connection, table).foreign_keys() if table.form else []:
            holders = {of for (of,) in self._execute(connection, query, table.schema, key.name)}
            if others := holders - {table.blue, table.green, table.old}:
                yield (
                    f"{table.blue}: the new structure needs the name {key.name}, which a foreign key of {', '.join(sorted(others))} has; give "
                    "another one"
                )
            if text.meanwhile(key.name) is None:
                yield f"{table.blue}: there is no name of {text.LONGEST_NAME} letters like that of {key.name}; give it a shorter one"

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        keys = self._definition(connection, schema, table).foreign_keys()
        return {key.parent for key in keys if key.parent_schema in (None, schema)} - {table}

    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        return definitions(partial(self._execute, connection), lambda name: self.qualified(schema, name), schema)

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

    def _if_allowed(self, connection: sa.Connection, query: str, *values: Any) -> Any:
        """The one value of a query; None without the privilege to look."""
        found = self._all_if_allowed(connection, query, *values)
        return found[0][0] if found else None

    def _all_if_allowed(self, connection: sa.Connection, query: str, *values: Any) -> Sequence[Any]:
        """The rows of a query; none without the privilege to look."""
        try:
            return self._execute(connection, query, *values).all()
        except sa.exc.DBAPIError as error:
            if number_of(error) not in (TABLE_ACCESS_DENIED, ACCESS_DENIED):
                raise
            return []

    # Preflight --------------------------------------------------------------------------------------------------

    def preflight(self, connection: sa.Connection, surroundings: Surroundings) -> list[Finding]:
        look = self.preflights(partial(self._execute, connection))
        return [*look.of_server(), *look.of_tables(surroundings), *self._files(connection)]

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

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return int(self._execute(connection, SIZE, schema, table).scalar_one())

    # Another structure ------------------------------------------------------------------------------------------

    @contextmanager
    def try_structure(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[Trial]:
        query = partial(self._execute, connection)
        live = tables[0].schema or str(query("SELECT DATABASE()").scalar_one())
        with structure.tried(query, live, [_raw(each) for each in statements]) as place:
            there = [each for each in tables if self.table_exists(connection, place, each.blue)]
            forms = {each.blue: self._shown(connection, place, each.blue) for each in there}
            unchanged = {
                each.blue
                for each in there
                if text.Definition(forms[each.blue]).same_as(self._definition(connection, each.schema, each.blue))
            }
            refusals = list(structure.refusals(query, live, place, list(forms), views))
            yield Trial(connection, place, forms, unchanged, {}, refusals)

    def _wanted(self, connection: sa.Connection, table: TableSet) -> text.Definition:
        """The table that green is to be, under its live name: that of its form, or blue."""
        if table.form is None:
            return self._definition(connection, table.schema, table.blue)
        return text.Definition(table.form.definition)

    # Tables apart -----------------------------------------------------------------------------------------------

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        with self.connect() as connection:
            charset, collation = self._execute(connection, "SELECT @@character_set_database, @@collation_database").one()
        with self._schema_apart(
            name,
            reserve="SELECT GET_LOCK(%s, 0) = 1",
            make=f"CREATE DATABASE {self.quote(name)} CHARACTER SET {charset} COLLATE {collation}",
            drop=f"DROP DATABASE IF EXISTS {self.quote(name)}",
        ):
            yield Scratch(self, name)

    def enter(self, connection: sa.Connection, scratch: Scratch) -> None:
        if scratch.schema:
            self._execute(connection, f"USE {self.quote(scratch.schema)}")

    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        shown = self._shown(connection, table.schema, table.blue)
        if not shown:
            raise CloneError(f"there is no table {table.blue}")
        return self.create_green(connection, replace(table, schema=scratch.schema, green=table.blue, form=Form(shown)))

    # Making green -----------------------------------------------------------------------------------------------

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Not LIKE: it gives other names to constraints, fails where these are too long, and its foreign keys' indexes are
        # the server's own, to be dropped and renamed as it likes.
        wanted = self._wanted(connection, table)
        clauses = [
            *map(_raw, self._rows_as_written(wanted)),
            *(self._check(self._name_on_green(each.name, table), each) for each in wanted.checks()),
        ]
        if table.form is None and (row_format := self._lost_row_format(connection, table, wanted)):
            wanted = wanted.with_row_format(row_format)
        head = f"CREATE TABLE {self.qualified(table.schema, table.green)}"
        body = ",\n  ".join(clauses)
        return [f"{head} (\n  {body}\n{_raw(wanted.options_from_one())}"]

    @abstractmethod
    def _rows_as_written(self, wanted: text.Definition) -> Iterable[str]:
        """The columns and keys of a table to be made, as the server takes them."""

    def _lost_row_format(self, connection: sa.Connection, table: TableSet, blue: text.Definition) -> str | None:
        """The row format of blue, if its definition does not say it and a new table would have another one."""
        if blue.row_format is not None:
            return None
        there = str(self._table_fact(connection, table.schema, table.blue, "ROW_FORMAT") or "")
        usual = str(self._execute(connection, "SELECT @@GLOBAL.innodb_default_row_format").scalar_one())
        return there if there.lower() in ROW_FORMATS and there.lower() != usual.lower() else None

    @abstractmethod
    def _name_on_green(self, check: str, table: TableSet) -> str:
        """What a CHECK of blue is called on green."""

    def _check(self, name: str, check: text.Check) -> str:
        return f"CONSTRAINT {self.quote(name)} CHECK {_raw(check.rule)}"

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = {index.name: index for index in self._definition(connection, table.schema, table.green).indexes()}
        wanted = self._wanted(connection, table)
        missing = [index for index in wanted.late_indexes() if there.get(index.name) != index]
        names = {index.name for index in wanted.indexes()}
        gone = [name for name in there if name not in names or any(name == index.name for index in missing)]
        plain = [f"ADD {_raw(index.clause)}" for index in missing if index.kind != "FULLTEXT"]
        plain += [f"DROP INDEX {self.quote(name)}" for name in gone]
        # InnoDB builds one of these at a time.
        fulltext = [f"ADD {_raw(index.clause)}" for index in missing if index.kind == "FULLTEXT"]
        head = f"ALTER TABLE {self.qualified(table.schema, table.green)}"
        return [f"{head} {adds}" for adds in ([", ".join(plain)] if plain else []) + fulltext]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Foreign keys among greens. Those to other tables come with the switch: green's rows, which lag behind, would keep the
        application from deleting there what its own rows do not need any more."""
        greens = {each.blue: each.green for each in run}
        wanted = self._wanted(connection, table)
        green = self._definition(connection, table.schema, table.green)
        there = {key.to(key.parent) for key in green.foreign_keys()}
        adds = [
            f"ADD {self._foreign_key(key, table.schema, greens[key.parent])}"
            for key in wanted.foreign_keys()
            if self._beside(key, table.schema, greens) and key.to(greens[key.parent]) not in there
        ]
        if not adds:
            return []
        head = f"ALTER TABLE {self.qualified(table.schema, table.green)}"
        return [UNCHECKED[0], f"{head} {', '.join([*adds, *self._kept(green.keyed())])}", UNCHECKED[1]]

    def _beside(self, key: text.ForeignKey, schema: str | None, tables: Container[str]) -> bool:
        return key.parent_schema in (None, schema) and key.parent in tables

    def _foreign_key(self, key: text.ForeignKey, schema: str | None, parent: str, name: str | None = None) -> str:
        return (
            f"CONSTRAINT {self.quote(name or _meanwhile(key.name))} FOREIGN KEY {_raw(key.columns)} REFERENCES "
            f"{self.qualified(key.parent_schema or schema, parent)} {_raw(key.parent_columns)}{_raw(key.actions)}"
        )

    def _kept(self, table: text.Keyed) -> list[str]:
        """Indexes that the server has made for a foreign key go and come with it; one that was renamed is the user's own, and stays
        where it is."""
        return [f"RENAME INDEX {name} TO {name}" for name in map(self.quote, table.plain_indexes)]

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        greens = {each.blue: each.green for each in run}
        found = []
        for key in self._wanted(connection, table).foreign_keys():
            parent = greens[key.parent] if self._beside(key, table.schema, greens) else key.parent
            match = " AND ".join(f"p.{self.quote(to)} = c.{self.quote(own)}" for own, to in key.pairs())
            given = " AND ".join(f"c.{self.quote(own)} IS NOT NULL" for own, _ in key.pairs())
            lost = self._execute(
                connection,
                f"SELECT COUNT(*) FROM {self.qualified(table.schema, table.green)} c WHERE {given} AND NOT EXISTS "
                f"(SELECT 1 FROM {self.qualified(key.parent_schema or table.schema, parent)} p WHERE {match})",
            ).scalar_one()
            if lost:
                found.append(f"{key.name} to {key.parent}, {lost:,} rows")
        return found

    @abstractmethod
    def _statistics_since(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Gives green the kinds of statistics that blue has been given since green was filled."""

    # Switching --------------------------------------------------------------------------------------------------

    @contextmanager
    def _named_lock(self, connection: sa.Connection, name: str, patience: timedelta) -> Iterator[bool]:
        database = self._execute(connection, "SELECT DATABASE()").scalar_one()
        key = f"projection_rebuild_{hashlib.sha256(f'{database}/{name}'.encode()).hexdigest()[:32]}"
        if self._execute(connection, "SELECT GET_LOCK(%s, %s)", key, patience.total_seconds()).scalar_one() != 1:
            yield False
            return
        with ending(lambda: self._execute(connection, "DO RELEASE_LOCK(%s)", key)):
            yield True

    def _limit_silence(self, connection: sa.Connection, longest: timedelta | None) -> None:
        """After which the server ends this connection, and its locks with it: its process may hang, or be gone without a word."""
        seconds = ours.value("wait_timeout") if longest is None else max(1, math.ceil(1.5 * longest.total_seconds()))
        self._execute(connection, f"SET SESSION wait_timeout = {seconds}")

    def take_back(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        renames = [f"{self.qualified(each.schema, each.old)} TO {self.qualified(each.schema, each.green)}" for each in tables]
        return [f"RENAME TABLE {', '.join(renames)}"]

    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        try:
            found = self._execute(connection, self.open_snapshots)
            return {(session, which): f"session {session}" for session, which in found}
        except sa.exc.DBAPIError as error:
            if number_of(error) in (ACCESS_DENIED, TABLE_ACCESS_DENIED):
                return {}
            raise

    def forecast_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        if len(tables) < rehearsal.FEW:
            return None
        # One at a time: the tables are the same for all. Whoever does not come to it in time goes without.
        with self._named_lock(connection, "rehearsal", REHEARSAL) as alone:
            if not alone:
                return None
            each = rehearsal.seconds_per_table(partial(self._execute, connection), partial(self.qualified, tables[0].schema))
        return each * len(tables)

    def before_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        # Where green is only planned, what makes it gives it everything.
        made = [table for table in tables if self.table_exists(connection, table.schema, table.green)]
        statements = [each for table in made for each in self.index_green(connection, table)]
        statements += [each for table in made for each in self._statistics_since(connection, table)]
        return statements + [each for table in made for each in self.constrain_green(connection, table, tables)]

    def switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        counters = []
        read = connection.info[READ] = {}
        for table in tables:
            blue, green = (self._definition(connection, table.schema, name) for name in (table.blue, table.green))
            read |= {(table, table.blue): blue, (table, table.green): green}
            if not planned:
                self._refuse_changes(table, tables, blue, green)
            wanted = blue if table.form is None else self._wanted(connection, table)
            if blue.counter not in (0, green.counter) and wanted.counts:
                counters.append(self._counter(table, table.green, blue.counter))
        renames = [
            f"{self.qualified(each.schema, before)} TO {self.qualified(each.schema, after)}"
            for each in tables
            for before, after in ((each.blue, each.old), (each.green, each.blue))
        ]
        return [*counters, f"RENAME TABLE {', '.join(renames)}"]

    def _refuse_changes(self, table: TableSet, run: Sequence[TableSet], blue: text.Definition, green: text.Definition) -> None:
        """Foreign keys that blue has been given meanwhile are not looked for: they come after the switch, from the retired table."""
        if table.form is not None:
            # Another structure on purpose.
            return
        names = {self._name_on_green(each.name, table): each.name for each in blue.checks()}
        changed = different(blue, green, names)
        lives = {each.green: each.blue for each in run}
        kept = {key.to(key.parent) for key in blue.foreign_keys()}
        changed += [
            f"foreign key {text.final(key.name)}"
            for key in green.foreign_keys()
            if key.to(lives.get(key.parent, key.parent)) not in kept
        ]
        if changed:
            raise changed_since(table.blue, table.green, changed)

    def _counter(self, table: TableSet, name: str, counter: int) -> str:
        """AUTO_INCREMENT goes on from where it was; the server itself sees to it that it is above all rows."""
        return f"ALTER TABLE {self.qualified(table.schema, name)} AUTO_INCREMENT = {counter}"

    @contextmanager
    def _killed_after(self, connection: sa.Connection, timeout: timedelta) -> Iterator[None]:
        session = self.session_id(connection)
        watchdog = threading.Timer(timeout.total_seconds(), self._cancel_in_time, [session])
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            watchdog.join()
            self._swallow_late_kill(connection)

    def _cancel_in_time(self, session: Any) -> None:
        # A server that cannot be reached has ended the statement already.
        with suppress(sa.exc.SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error, ConnectionRefused):
            self.cancel(session)

    def _swallow_late_kill(self, connection: sa.Connection) -> None:
        """A kill that came just after its statement had ended strikes the next one; this is that one."""
        if connection.invalidated:
            return
        try:
            self._execute(connection, "SELECT 1")
        except sa.exc.DBAPIError as error:
            if not self.lock_was_refused(error):
                raise

    def _separated(self, tables: Mapping[TableSet, LiveAndOld]) -> list[str]:
        """The live tables get the foreign keys to tables beside the run, and the old ones, whose rows hold up deletes there, lose
        theirs. In this order, so that what is missing can always be read from the catalogs."""
        counters, adds, drops = [], [], []
        for table, (live, old) in tables.items():
            if old.counter > live.counter and live.counts:
                counters.append(self._counter(table, table.blue, old.counter))
            if missing := self._missing(live, old, table, tables):
                clauses = [f"ADD {self._foreign_key(key, table.schema, key.parent)}" for key in missing]
                adds.append(self._in_place(table.schema, table.blue, live, clauses))
            if keys := old.foreign_keys:
                clauses = [f"DROP FOREIGN KEY {self.quote(key.name)}" for key in keys]
                drops.append(self._in_place(table.schema, table.old, old, clauses))
        return [*counters, *([UNCHECKED[0], *adds, *drops, UNCHECKED[1]] if adds or drops else [])]

    def _live_and_old(self, connection: sa.Connection, table: TableSet) -> LiveAndOld:
        live, old = (self._definition(connection, table.schema, name).keyed() for name in (table.blue, table.old))
        return live, old

    def _live_and_old_to_be(
        self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet], planned: bool
    ) -> LiveAndOld:
        """As :meth:`_live_and_old`, of what the switch will leave; nothing counts meanwhile."""
        read = connection.info.get(READ, {})
        blue, green = (
            read.get((table, name)) or self._definition(connection, table.schema, name) for name in (table.blue, table.green)
        )
        lives, olds = {each.green: each.blue for each in run}, {each.blue: each.old for each in run}
        if green.clauses and not planned:
            live = green.keyed()
            keys = [
                replace(key, parent=lives[key.parent]) if self._beside(key, table.schema, lives) else key
                for key in live.foreign_keys
            ]
        else:
            # What makes it, or has yet to complete it, gives it these names.
            live = (blue if table.form is None else self._wanted(connection, table)).keyed()
            beside = (key for key in live.foreign_keys if self._beside(key, table.schema, olds))
            keys = [replace(key, name=_meanwhile(key.name)) for key in beside]
        old = blue.keyed()
        retired = [
            replace(
                key,
                name=text.renamed(key.name, table.blue, table.old, "ibfk"),
                parent=olds[key.parent] if self._beside(key, table.schema, olds) else key.parent,
            )
            for key in old.foreign_keys
        ]
        return replace(live, foreign_keys=keys, counter=0), replace(old, foreign_keys=retired, counter=0)

    def _missing(self, live: text.Keyed, old: text.Keyed, table: TableSet, tables: Iterable[TableSet]) -> list[text.ForeignKey]:
        """Foreign keys that the old table has and the live one has not, by the names and parents that they have there."""
        there = {key.to(key.parent) for key in live.foreign_keys}
        if table.form is not None:
            return [key for key in text.Definition(table.form.definition).foreign_keys() if key.to(key.parent) not in there]
        lives = {each.old: each.blue for each in tables}
        found = []
        for key in old.foreign_keys:
            number = text.generated(key.name, table.old, "ibfk")
            name = f"{table.blue}_ibfk_{number}" if number else text.final(key.name)
            parent = lives[key.parent] if self._beside(key, table.schema, lives) else key.parent
            found.append(replace(key, name=name, parent=parent))
        return [key for key in found if key.to(key.parent) not in there]

    def _in_place(self, schema: str | None, table: str, as_it_is: text.Keyed, parts: Sequence[str]) -> str:
        changes = ", ".join([*parts, *self._kept(as_it_is)])
        return f"ALTER TABLE {self.qualified(schema, table)} {changes}, ALGORITHM = INPLACE"

    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return self._names_put_right({table: self._live_and_old(connection, table) for table in tables})

    def planned_after_switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        shown = {table: self._live_and_old_to_be(connection, table, tables, planned) for table in tables}
        connection.info.pop(READ, None)
        return self._names_put_right(shown)

    def _names_put_right(self, shown: Mapping[TableSet, LiveAndOld]) -> list[str]:
        """Constraints get their names back, which the old tables had until then."""
        made = self._separated(shown)
        for table, (live, old) in shown.items():
            made += self._foreign_keys_renamed(table, live, self._missing(live, old, table, shown))
        return made

    def _foreign_keys_renamed(self, table: TableSet, live: text.Keyed, added: list[text.ForeignKey]) -> list[str]:
        keys = [key for key in live.foreign_keys if key.name != text.final(key.name)]
        keys += [replace(key, name=_meanwhile(key.name)) for key in added]
        if not keys:
            return []
        drops = [f"DROP FOREIGN KEY {self.quote(key.name)}" for key in keys]
        adds = [f"ADD {self._foreign_key(key, table.schema, key.parent, text.final(key.name))}" for key in keys]
        return [UNCHECKED[0], self._in_place(table.schema, table.blue, live, [*drops, *adds]), UNCHECKED[1]]

    def run_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        if not statement.startswith("ALTER"):
            self._execute(connection, statement)
            return
        # Its last step waits for row locks, where no KILL ends it and nobody sees a deadlock.
        self._execute(connection, "SET SESSION innodb_lock_wait_timeout = 1")
        self._alter_at_work(connection, tables, statement, timeout)

    @abstractmethod
    def _alter_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        """Takes an ALTER's tables at a moment at which nobody is the victim of a deadlock with it."""

    # Rows -------------------------------------------------------------------------------------------------------

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        # A file's 1 is a letter to a BIT column.
        by_file = len(rows) >= MANY_ROWS and self._takes_files and not self._definition(connection, schema, table).has_bits
        for some in slices(bound(kind, rows, self.binds)):
            lines = as_text(some, _FORMATS) if by_file and len(some) >= MANY_ROWS and self._takes_files else None
            if lines is None or not self._load_text(connection, self.qualified(schema, table), kind, lines, len(some)):
                self._insert(connection, schema, table, kind, some)

    def _load_text(self, connection: sa.Connection, target: str, kind: RowType, lines: str, count: int) -> bool:
        """Rows by LOAD DATA, in the caller's transaction.

        :returns: whether they are in the table; if not, none of them is
        """
        self._execute(connection, "SAVEPOINT projection_rebuild_load")
        with NamedTemporaryFile(prefix="projection_rebuild_") as file:
            file.write(lines.encode())
            file.flush()
            path = file.name.replace("\\", "/").replace("'", "''").replace("%", "%%")
            try:
                loaded = self._execute(
                    connection,
                    # In hexadecimal, which is right in any sql_mode.
                    f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {target} CHARACTER SET utf8mb4 "
                    f"FIELDS TERMINATED BY 0x09 ESCAPED BY 0x5C LINES TERMINATED BY 0x0A ({self._list(kind.columns)})",
                ).rowcount
            except sa.exc.DBAPIError as error:
                if number_of(error) not in FILES_REFUSED:
                    raise
                self._takes_files, loaded = False, 0
        # The server forgives in a file of the client's what it refuses elsewhere: it leaves rows out and cuts values, and warns.
        if loaded == count and not self._execute(connection, "SELECT @@warning_count").scalar_one():
            return True
        self._execute(connection, "ROLLBACK TO SAVEPOINT projection_rebuild_load")
        return False

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        changed = [name for name in kind.columns if name not in kind.key]
        if not changed:
            return len(rows)
        if len(rows) < MANY_UPDATES or not self._has_one_key(connection, schema, table):
            return self._update_in_one_go(connection, schema, table, kind, rows)
        # The driver sends one statement for many rows only for INSERT. Each row is there, so each one is an update.
        marks = ", ".join([self._mark] * len(kind.columns))
        # And of that one it does not format what follows the values, so that percent signs are not doubled there.
        sets = ", ".join(f"{self.quote(name)} = VALUES({self.quote(name)})" for name in changed).replace("%%", "%")
        statement = (
            f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks}) "
            f"ON DUPLICATE KEY UPDATE {sets}"
        )
        self._execute(connection, "SAVEPOINT projection_rebuild_update")
        # The server counts a row that it has changed twice, and one that it has inserted once.
        if self._many(connection, statement, bound(kind, rows, self.binds)) == 2 * len(rows):
            return len(rows)
        self._execute(connection, "ROLLBACK TO SAVEPOINT projection_rebuild_update")
        return self._update_in_one_go(connection, schema, table, kind, rows)

    def _has_one_key(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether an INSERT can only meet the row that is meant, and uses up no number."""
        shown = self._definition(connection, schema, table)
        keys = [each for each in shown.clauses if each.startswith(("PRIMARY KEY", "UNIQUE KEY"))]
        return len(keys) == 1 and not shown.counts

    def _update_in_one_go(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """As :meth:`update_rows`, with many statements in each message to the server."""
        if not self._takes_many:
            return self.update_rows(connection, schema, table, kind, rows)
        statement, values = self._update(schema, table, kind, rows)
        driver: Any = connection.connection.driver_connection
        head = statement.encode()
        statements, found = [head % tuple(map(driver.literal, row)) for row in values], 0
        with closing(driver.cursor()) as cursor:
            for message in _messages(statements):
                try:
                    cursor.execute(message)
                    found += cursor.rowcount
                    while cursor.nextset():
                        found += cursor.rowcount
                except self.engine.dialect.loaded_dbapi.ProgrammingError as error:
                    if number_of(error) != SYNTAX_ERROR:
                        raise
                    # The connection, or something on the way, takes one statement at a time; and has executed none of these.
                    self._takes_many = False
                    return self.update_rows(connection, schema, table, kind, rows)
        return found

    def _read_list(self, kind: RowType) -> str:
        # Of single precision the server shows six digits, and holds more.
        floats = {name for name, annotated in kind.types.items() if plain_type(annotated) is float}
        return ", ".join(f"{self.quote(name)} + 0e0" if name in floats else self.quote(name) for name in kind.columns)

    def _absent_insert(self, into: str, kind: RowType) -> str:
        same = self.quote(kind.key[0])
        return f"INSERT {into} ON DUPLICATE KEY UPDATE {same} = {same}"

    # Comparing --------------------------------------------------------------------------------------------------

    def differs(self, left: str, right: str) -> str:
        return f"NOT ({left} <=> {right})"

    # The second opinion -----------------------------------------------------------------------------------------

    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        return quoted if kind is ColumnKind.BYTES else f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY)"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        return f"CAST({quoted} AS CHAR)" if kind is ColumnKind.TIME else quoted

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        path = '$."' + field.replace("\\", "\\\\").replace('"', '\\"') + '"'
        literal = path.replace("\\", "\\\\").replace("'", "''").replace("%", "%%")
        text = f"CONVERT({quoted} USING utf8mb4)" if kind is ColumnKind.BYTES else quoted
        return f"JSON_UNQUOTE({self._last_in_text(text, literal)})"

    @abstractmethod
    def _last_in_text(self, text: str, path: str) -> str:
        """What is at a path of JSON; the last one, if it is there twice. All of it is text of SQL."""

    def temporary(self, schema: str | None, name: str) -> str:
        return self.qualified(schema, name)

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        like = self.qualified(schema, table)
        return [
            f"CREATE TEMPORARY TABLE {self.temporary(schema, name)} (projection_rebuild_row BIGINT NOT NULL PRIMARY KEY) ENGINE=InnoDB AS "
            # By the join all columns may be NULL, so that a key can be given alone.
            f"SELECT 0 AS projection_rebuild_row, {self._list(columns)} FROM (SELECT 1 AS projection_rebuild_one) o LEFT JOIN {like} t ON FALSE LIMIT 0"
        ]

    def drop_temporary(self, schema: str | None, name: str) -> str:
        return f"DROP TEMPORARY TABLE IF EXISTS {self.temporary(schema, name)}"

    # Parts ------------------------------------------------------------------------------------------------------

    def copy_others(self, connection: sa.Connection, table: TableSet, column: str, listed: Listed) -> None:
        # What stands in blue is right by definition: an id of 0, or a day that today's mode would refuse. READ COMMITTED makes it a
        # consistent read, which locks nothing of blue.
        self._execute(connection, _AS_IT_STANDS[0])
        try:
            super().copy_others(connection, table, column, listed)
        finally:
            self._execute(connection, _AS_IT_STANDS[1])

    def as_text(self, expression: str) -> str:
        return f"CONVERT({expression} USING utf8mb4) COLLATE utf8mb4_bin"

    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        query = """SELECT COLUMN_NAME FROM information_schema.COLUMNS
                   WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s AND COALESCE(GENERATION_EXPRESSION, '') = ''
                   ORDER BY ORDINAL_POSITION"""
        return [name for (name,) in self._execute(connection, query, table.schema, table.blue)]

    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        kind = mysql.DATETIME(fsp=6)
        return sa.cast(column, kind) < sa.literal(moment.astimezone(UTC).replace(tzinfo=None), kind)

    # The event store --------------------------------------------------------------------------------------------

    def _wait_at_the_fence(self, schema: str | None, table: str, began: float, patience: timedelta) -> None:
        """A fence waits for readers too, and whoever comes later waits behind it. So it waits for a moment and rests for longer; the
        longer somebody keeps it from its lock, the longer it may take both."""
        while True:
            waited = time.monotonic() - began
            left = patience.total_seconds() - waited
            try:
                with self.fence(schema, table, timedelta(seconds=min(1, max(0.1, waited / 20)))):
                    return
            except sa.exc.DBAPIError as error:
                if not self.lock_was_refused(error):
                    raise
                if left < 0:
                    raise not_settled(table, patience) from error
            time.sleep(max(0, min(10, waited, left)) + random.uniform(0.02, 0.1))  # noqa: S311 - spreads retries, guards nothing

    @contextmanager
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> Iterator[Fence]:
        # FLUSH TABLES waits for appends in flight and does not starve under new ones, as LOCK TABLES ... READ does.
        with self.connect() as connection:
            self.limit_lock_wait(connection, timeout)
            self._limit_silence(connection, longest)
            with self._killed_after(connection, timeout):
                self._execute(connection, f"FLUSH TABLES {self.qualified(schema, table)} WITH READ LOCK")
            try:
                yield Fence(lambda: self._still_there(connection))
            finally:
                try:
                    self._execute(connection, "UNLOCK TABLES")
                    self._limit_silence(connection, None)
                except sa.exc.SQLAlchemyError:
                    # Then the lock goes with the connection that holds it; the error that matters is another one.
                    connection.invalidate()

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        # Unbuffered, and without SQLAlchemy's rows.
        compiled = query.compile(dialect=self.engine.dialect, compile_kwargs={"render_postcompile": True})
        driver: Any = connection.connection.driver_connection
        with closing(driver.cursor(SSCursor)) as cursor:
            cursor.execute(str(compiled), [compiled.params[name] for name in compiled.positiontup or ()])
            while page := list(cursor.fetchmany(size)):
                yield page

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

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        found = self._table_fact(connection, schema, table, "TABLE_TYPE")
        return None if found is None else "table" if found in TABLE_TYPES else str(found).lower()

    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # No collation takes blanks at the end for what they are on both servers.
        return sa.type_coerce(sa.cast(self.utf8(text), sa.LargeBinary), sa.String)

    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.type_coerce(sa.func.convert(column.op("USING")(sa.literal_column("utf8mb4"))), sa.Text)

    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.lower(sa.func.hex(column), type_=sa.Text)

    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        path = '$."' + field.replace("\\", "\\\\").replace('"', '\\"') + '"'
        text = self.utf8(payload) if kind is ColumnKind.BYTES else payload
        found = sa.func.json_unquote(self._last(text, path), type_=sa.Text)
        return found if kind is ColumnKind.JSON else sa.case((sa.func.json_valid(text) == 1, found))

    @abstractmethod
    def _last(self, text: sa.ColumnElement[Any], path: str) -> sa.ColumnElement[Any]:
        """What is at a path of JSON; the last one, as in Python, if it is there twice."""

    def equals_bytes(self, quoted: str) -> str:
        return f"CAST(CONVERT({quoted} USING utf8mb4) AS BINARY) = CAST(%s AS BINARY)"

    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        return sa.func.mod(sa.func.crc32(text), count, type_=sa.BigInteger)

    # Catalogs ---------------------------------------------------------------------------------------------------

    def _table_fact(self, connection: sa.Connection, schema: str | None, table: str, fact: str) -> Any:
        query = f"""SELECT {fact} FROM information_schema.TABLES
                    WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s"""
        return self._execute(connection, query, schema, table).scalar()

    def _definition(self, connection: sa.Connection, schema: str | None, table: str) -> text.Definition:
        """What a table is; nothing, for one that is only planned or has gone."""
        return text.Definition(self._shown(connection, schema, table))

    def _shown(self, connection: sa.Connection, schema: str | None, table: str) -> str:
        statement = f"SHOW CREATE TABLE {self.qualified(schema, table)}"
        try:
            shown = str(self._execute(connection, statement).one()[1])
        except sa.exc.DBAPIError as error:
            if number_of(error) == NO_SUCH_TABLE:
                return ""
            raise
        if shown.startswith('CREATE TABLE "'):
            self._execute(connection, _BACKTICKS[0])
            shown = str(self._execute(connection, statement).one()[1])
            self._execute(connection, _BACKTICKS[1])
        return shown


@contextmanager
def ending(last: Callable[[], object]) -> Iterator[None]:
    """Does something at the end; after an error it is that one which matters, whatever becomes of this."""
    try:
        yield
    except BaseException:
        with suppress(sa.exc.SQLAlchemyError):
            last()
        raise
    last()


def _messages(statements: Iterable[bytes]) -> Iterator[bytes]:
    """Statements together, as many as go into one message."""
    some: list[bytes] = []
    size = 0
    for each in statements:
        if some and size + len(each) > LONGEST_MESSAGE:
            yield b";".join(some)
            some, size = [], 0
        some.append(each)
        size += len(each) + 1
    if some:
        yield b";".join(some)


def _raw(clause: str) -> str:
    """What the server has written, for a driver that formats its statements."""
    return clause.replace("%", "%%")


def _meanwhile(name: str) -> str:
    made = text.meanwhile(name)
    if made is None:
        raise CloneError(f"{name}: there is no name of {text.LONGEST_NAME} letters like this one; give it a shorter one")
    return made


def not_settled(table: str, patience: timedelta) -> SettleTimeout:
    return SettleTimeout(
        f"transactions that append to {table} did not end within {patience.total_seconds():.0f} s; look for long transactions in "
        "information_schema.INNODB_TRX, then retry"
    )


def compares_bytes(collation: str) -> bool:
    """Whether texts are equal by it only if their bytes are. The others take blanks at the end for nothing, utf8mb4_bin as well."""
    return collation == "utf8mb4_0900_bin" or collation.endswith("_nopad_bin") or collation == "binary"


def _text_or_other(value: Any) -> Any:
    return _text(value) if isinstance(value, bytes) else value


def _text(value: str | bytes) -> str:
    """MySQL's catalogs give some names as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def number_of(error: BaseException) -> int | None:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return cause.args[0] if cause is not None and cause.args and isinstance(cause.args[0], int) else None


def different(wanted: text.Definition, there: text.Definition, names: Mapping[str, str]) -> list[str]:
    """What differs between two tables that should be alike, foreign keys left out.

    :param names: of the second one's CHECKs, as they are called on the first one
    """
    if wanted.row_format is None:
        # A copy may have to say what the other has from another default of the server's.
        there = there.without_row_format()
    one, other = wanted.parts(), there.parts()
    one |= {f"constraint {each.name}": each.rule for each in wanted.checks()}
    other |= {f"constraint {names.get(each.name, each.name)}": each.rule for each in there.checks()}
    return [what for what in one | other if one.get(what) != other.get(what)]


def file_name(name: str) -> str:
    """A name as InnoDB's catalog spells it: what is not a plain letter, digit or underscore is ``@`` and four hex digits.

    Some letters outside ASCII have shorter forms there; such a table is then not found, and has no identity.
    """
    return "".join(each if each.isascii() and (each.isalnum() or each == "_") else f"@{ord(each):04x}" for each in name)
