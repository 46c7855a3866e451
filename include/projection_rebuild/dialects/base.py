"""What the engine asks of a database, verb by verb; one subclass per database family, the verbs in the same order.

Methods that return statements do not execute them: a step runs them one by one (and a dry run prints them). They read
the catalogs each time, so that after a crash they return just what is still missing.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

import sqlalchemy as sa

from projection_rebuild.column_kinds import ColumnKind, ColumnType
from projection_rebuild.dialects.trouble import trouble_of
from projection_rebuild.errors import ConnectionLost, ConnectionRefused
from projection_rebuild.findings import Carried, Finding
from projection_rebuild.names import TableSet
from projection_rebuild.positions import Place
from projection_rebuild.rows import Key, RowType, Values
from projection_rebuild.shapes import Shape
from projection_rebuild.trouble import Kind
from projection_rebuild.values import PORTABLE_BINDS, Convert, bound, bound_keys, loaded

CHECKED = "projection_rebuild_checked"
"""In a connection's ``info``: its session has been checked, and is ours alone."""

KEYS_PER_STATEMENT = 500
"""Row keys in one IN list: far below every database's limit on bound values, and enough to make round trips cheap."""


DENIALS = frozenset({Kind.DENIED, Kind.READ_ONLY, Kind.MISSING, Kind.SQL})
"""How statements end that fail again as long as nobody changes something."""


class TablesBusy(Exception):
    """Somebody uses the tables, and has not been asked to wait; trying again can help."""


class TablesChanged(Exception):
    """Something was done to the tables since they were looked at; looking again can help."""


class FenceDied(Exception):
    """The connection that held appends back is gone; nothing has been switched."""


class PauseTooLong(Exception):
    """This attempt has held the writers for as long as it may; it is undone."""


@dataclass(frozen=True)
class Refusal:
    """Why a connection cannot be had, or cannot be worked with.

    :param reason: one clause, without addresses, accounts or values
    :param remedy: what a person can do
    :param retryable: whether the same connection may work later
    """

    reason: str
    remedy: str
    retryable: bool = False


@dataclass(frozen=True)
class Fence:
    """Appends are held back.

    :param holds: whether the fence is still there, asked over its own connection
    """

    holds: Callable[[], bool]


@dataclass(frozen=True)
class Manners:
    """How a switch gets at its tables.

    :param timeout: the longest wait
    :param polite: look for a moment, and switch if nobody uses the tables, so that nobody ever queues behind the switch;
        otherwise wait in the queue, which gets through where readers never leave a gap
    :param tables_first: the tables are to be held before there is a fence, wherever that can be done
    :param fence: what holds the appends back meanwhile, if something has to
    :param longest: for how long the tables may be held; past it the server should give them up by itself
    :param looked_at: other live tables, at which handlers look meanwhile
    :param confirm: asked when nobody comes to the tables any more, where they cannot be held until they are renamed; raises if somebody
        has come to them since they were taken, and from another thread. None: that does no harm
    :param nobody_waits: nobody is held yet, so a look for a moment may last
    :param begins: called when the look is over, and somebody may wait from now on
    :param left: the seconds for which the writers may still be held
    """

    timeout: timedelta
    polite: bool = True
    tables_first: bool = False
    fence: Fence | None = None
    longest: timedelta = timedelta(seconds=2)
    looked_at: tuple[str, ...] = ()
    confirm: Callable[[], None] | None = None
    nobody_waits: bool = False
    begins: Callable[[], object] = lambda: None
    left: Callable[[], float] = lambda: math.inf

    @property
    def rest(self) -> timedelta:
        """As ``left``, for a server's own clock: never nothing, and never without an end."""
        return timedelta(seconds=max(0.001, min(self.left(), self.longest.total_seconds())))

    def stay_in_time(self) -> None:
        """Looks at the clock.

        :raises PauseTooLong: the time is up
        """
        if self.left() <= 0:
            raise PauseTooLong

    @property
    def look(self) -> float:
        """Seconds for which a switch looks for a moment: whoever waits at the fence and has read the tables does not let go of them."""
        return self.longest.total_seconds() / 4 if self.nobody_waits else self.timeout.total_seconds() / 5


@dataclass(frozen=True)
class Surroundings:
    """What a preflight looks at.

    :param schema: that of the tables and of the ledger
    :param tables: those of the run that exist
    :param ledger: the names of our own tables, which may not exist yet
    """

    schema: str | None
    tables: Sequence[TableSet]
    ledger: Sequence[str]


@dataclass(frozen=True)
class Extent:
    """About how large a table is.

    :param rows: its rows
    :param size: its bytes, indexes included
    """

    rows: int
    size: int


@dataclass(frozen=True)
class Listed:
    """Keys in a table of the ledger, ``part_id`` and ``part_key``.

    :param part_id: which of them
    """

    schema: str | None
    table: str
    part_id: str


@dataclass(frozen=True)
class Trial:
    """Tables of a new structure, made empty and apart from the live ones, under their live names.

    :param connection: where they are; may be another database than that of the live ones
    :param schema: the schema that holds them
    :param forms: what the dialect needs to make each of them once more, by name; only tables of the run
    :param unchanged: those of them that are like the live ones in every word
    :param views: the views that are defined anew, by name, in the dialect's own words
    :param refusals: what hangs on the live tables and would not work with the new ones, each with its remedy
    :param elsewhere: begins the names of the schemas whose tables stand for those of other schemas, there with the rest of that name
    """

    connection: sa.Connection
    schema: str | None
    forms: dict[str, str]
    unchanged: set[str]
    views: dict[str, str]
    refusals: list[str]
    elsewhere: str = ""


PATIENCE = 120.0
"""Seconds for which somebody else is waited for who has the same place apart."""


def wait_for(reserved: Callable[[], bool]) -> None:
    """Returns once a place is ours.

    :raises TablesBusy: it was not in time
    """
    deadline = time.monotonic() + PATIENCE
    while not reserved():
        if time.monotonic() > deadline:
            raise TablesBusy
        time.sleep(0.1)


@dataclass(frozen=True)
class Scratch:
    """Where tables are made apart from all that is live, and under the live names.

    :param dialect: the database
    :param schema: the schema (on MySQL and MariaDB: the database) that holds them, and nothing else; None: all of the database is theirs
    """

    dialect: Dialect
    schema: str | None


class Dialect(ABC):
    """The verbs of one database family.

    :param engine: the SQLAlchemy engine of the database; its preparer quotes every identifier
    :param known_as: how people know the connection, in messages: its id
    """

    max_identifier: ClassVar[int]
    """Bytes (MySQL: characters) in a name."""

    ddl_commits: ClassVar[bool]
    """True where each DDL statement commits by itself, so that a switch cannot be rolled back."""

    @property
    def flavour(self) -> str:
        """Which SQL it takes: ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``."""
        return self.engine.dialect.name

    @property
    def holds_tables(self) -> bool:
        """Whether :meth:`hold` keeps everybody from the blue tables until they are switched.

        Otherwise a switch waits by itself, and goes on even if its process, and the fence with it, has died.
        """
        return True

    def are_held(self, connection: sa.Connection) -> bool:
        """Whether nobody but us comes to the blue tables now, within :meth:`hold`."""
        return self.holds_tables

    validates_keys: ClassVar[bool] = False
    """True where :meth:`after_switch` has all rows read for the foreign keys that came with the switch."""

    one_writer: ClassVar[bool] = False
    """True where a transaction that writes keeps all others from writing."""

    rows_per_transaction: ClassVar[int | None] = None
    """How many rows a replay writes at once at most; None: as many as it likes."""

    binds: ClassVar[dict[type, Convert]] = PORTABLE_BINDS
    reads_offsets: ClassVar[bool] = True
    """Whether a column of times takes every text that tells an offset (``Z``, ``+02:00``)."""

    def __init__(self, engine: sa.Engine, known_as: str = "the database") -> None:
        self.engine = engine
        self.known_as = known_as
        self._quote = engine.dialect.identifier_preparer.quote_identifier
        self._sessions: dict[sa.Connection, int] = {}
        self._cancelling = threading.RLock()
        self._mark = "?" if engine.dialect.paramstyle == "qmark" else "%s"

    # Naming -----------------------------------------------------------------------------------------------------

    def quote(self, name: str) -> str:
        """An identifier, quoted always; with doubled percent signs where the driver formats its statements."""
        return self._quote(name)

    def qualified(self, schema: str | None, table: str) -> str:
        """A table's name with its schema, quoted."""
        return f"{self.quote(schema)}.{self.quote(table)}" if schema else self.quote(table)

    def _list(self, names: Iterable[str]) -> str:
        return ", ".join(self.quote(name) for name in names)

    # Connections ------------------------------------------------------------------------------------------------

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection set up for our work: READ COMMITTED, UTC, each statement committed unless in a transaction.

        :raises ConnectionRefused: it cannot be had, or its session is not ours alone, or it is less safe than it was configured
        """
        with self._open().execution_options(isolation_level="AUTOCOMMIT") as connection, _closed_at_error(connection):
            self._sign_on(connection)
            try:
                yield connection
            finally:
                self._sessions.pop(connection, None)

    def renew(self, connection: sa.Connection) -> None:
        """If the server has ended this connection, another one takes its place."""
        if connection.invalidated:
            connection.rollback()
            self._sign_on(connection)

    def _open(self) -> sa.Connection:
        try:
            return self.engine.connect()
        except (sa.exc.DBAPIError, sa.exc.ArgumentError, TypeError) as error:
            raise self._refused(self.why_not_connected(error)) from error

    def _refused(self, why: Refusal) -> ConnectionRefused:
        return ConnectionRefused(f"{self.known_as} cannot be used: {why.reason}. {why.remedy}", retryable=why.retryable)

    @abstractmethod
    def why_not_connected(self, error: BaseException) -> Refusal:
        """What the driver means by the error with which a connection could not be made."""

    @abstractmethod
    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        """Why nothing may be set on a new connection, such as a pooler that shares sessions; None: it is as it was configured.

        It only looks: what it does leaves nothing on the session that another client could meet.
        """

    def _check_session(self, connection: sa.Connection) -> None:
        """Once for each connection to the server, before anything is set on it."""
        if connection.info.get(CHECKED):
            return
        try:
            why = self.why_not_ours(connection)
        except sa.exc.DBAPIError as error:
            raise self._refused(self.why_not_connected(error)) from error
        if why is not None:
            raise self._refused(why)
        connection.info[CHECKED] = True

    def _sign_on(self, connection: sa.Connection) -> None:
        self._check_session(connection)
        self.set_up(connection)
        if (session := self.session_id(connection)) is not None:
            self._sessions[connection] = session

    @abstractmethod
    def set_up(self, connection: sa.Connection) -> None:
        """Session settings of a new connection: those that the module beside the dialect's own lists, and docs/reference/sessions.md shows."""

    @abstractmethod
    def session(self, connection: sa.Connection) -> list[str]:
        """Statements that make the same settings in a shell, as they stand."""

    def on_connect(self, driver: Any) -> None:  # noqa: B027 - most databases need none
        """Settings of a driver's new connection that SQLAlchemy's own first questions need."""

    def check_live(self, connection: sa.Connection) -> None:  # noqa: B027 - SQLite's connections read and write alike
        """Whether the application's session writes and reads rows as ours do, for the moment of :meth:`times_in_utc`.

        :raises SessionError: a setting of it that would change rows; nothing has been written
        """

    def _version(self, connection: sa.Connection) -> tuple[int, ...]:
        """The server's."""
        return tuple(each for each in connection.dialect.server_version_info or () if isinstance(each, int))

    @contextmanager
    def times_in_utc(self, connection: sa.Connection) -> Iterator[None]:
        """Within it the application's session has its times in UTC, as ours have; then it has its own time zone again, also after an error."""
        yield

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        """One explicit transaction on a connection of :meth:`connect`."""
        self._execute(connection, self.begin)
        try:
            yield
            # Within: where it is refused (SQLite, for a reader's sake), the transaction is still open.
            self._execute(connection, "COMMIT")
        except BaseException:
            # On a lost connection the server has rolled back by itself; the error that matters is the first one.
            with suppress(sa.exc.SQLAlchemyError):
                self._execute(connection, "ROLLBACK")
            raise

    begin: ClassVar[str] = "BEGIN"

    def run(self, connection: sa.Connection, statement: str) -> None:
        """Executes one of the statements that the verbs below return."""
        self._execute(connection, statement)

    def as_it_stands(self, statement: str) -> str:
        """A statement of the verbs below without what the driver needs: it formats them, so percent signs are doubled there."""
        return statement if self._mark == "?" else statement.replace("%%", "%")

    def run_as_it_stands(self, connection: sa.Connection, statement: str) -> sa.CursorResult[*tuple[Any, ...]]:
        """Executes a statement that has no bound values and whose percent signs are not doubled."""
        return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def allow_memory(self, connection: sa.Connection, mib: int) -> None:  # noqa: B027 - most databases have no such setting
        """Lets each sort and hash of the transaction take so much memory of the server, where that can be said."""

    def _execute(self, connection: sa.Connection, statement: str, *values: Any) -> sa.CursorResult[*tuple[Any, ...]]:
        return connection.exec_driver_sql(statement, tuple(values))

    @staticmethod
    def kind_of(error: BaseException | None) -> Kind | None:
        """What kind of trouble of a database an error is; None: it is no such error."""
        trouble = None if error is None else trouble_of(error)
        return None if trouble is None else trouble.kind

    refusals: ClassVar[frozenset[Kind]] = frozenset({Kind.BUSY})
    """How statements end that were not given a lock."""

    def lock_was_refused(self, error: BaseException | None) -> bool:
        """Whether a statement failed only because a lock could not be had in time, so that trying again can help."""
        return isinstance(error, TablesBusy) or self.kind_of(error) in self.refusals

    def was_cut(self, error: BaseException) -> bool:
        """Whether a connection has ended, and with it all that it had not committed, so that another one can try again.

        Never where DDL commits by itself: what a connection has left there may still be waiting to be done.
        """
        return not self.ddl_commits and died(error)

    def names_changed(self, error: BaseException | None) -> bool:
        """Whether a statement failed because a name that it speaks of has gone, or has been taken, since it was written."""
        return self.kind_of(error) is Kind.MISSING

    def was_denied(self, error: BaseException) -> bool:
        """Whether a statement failed because something does not exist or may not be done, so that it would fail again."""
        return self.kind_of(error) in DENIALS

    @abstractmethod
    def session_id(self, connection: sa.Connection) -> int | None:
        """What :meth:`cancel` needs to know of a connection; None where a statement cannot be cancelled."""

    @abstractmethod
    def cancel(self, session_id: int) -> None:
        """Ends the statement that another connection of ours is executing."""

    def cancel_all(self) -> None:
        """Ends every statement that connections of this object are executing; callable from another thread."""
        # One at a time, or each would end the statement by which the other ends one.
        with self._cancelling:
            for session in list(self._sessions.values()):
                self.cancel(session)

    @abstractmethod
    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        """The longest wait for a table lock from here on; databases round it up to what they can."""

    @abstractmethod
    def usual_lock_wait(self, connection: sa.Connection) -> None:
        """From here on the longest wait for a table lock is that of our sessions' settings."""

    @contextmanager
    def short_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> Iterator[None]:
        """Waits no longer than this for a table lock; after it, as long as usual."""
        self.limit_lock_wait(connection, timeout)
        try:
            yield
        finally:
            # A connection that was cut has no settings any more.
            with suppress(sa.exc.SQLAlchemyError):
                self.usual_lock_wait(connection)

    # Looking at tables ------------------------------------------------------------------------------------------

    def table_exists(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether there is a table (not a view) of this name."""
        return sa.inspect(connection).has_table(table, schema=schema) and table not in self._views(connection, schema)

    def _views(self, connection: sa.Connection, schema: str | None) -> list[str]:
        return sa.inspect(connection).get_view_names(schema=schema)

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        """The sets of columns that are unique in a table: its primary key, unique constraints and whole unique indexes.

        :param among_some: also those of indexes over some of the rows
        """
        inspector = sa.inspect(connection)
        primary = set(inspector.get_pk_constraint(table, schema=schema)["constrained_columns"])
        constraints = [set(each["column_names"]) for each in inspector.get_unique_constraints(table, schema=schema)]
        indexes = [
            {str(name) for name in each["column_names"]}
            for each in inspector.get_indexes(table, schema=schema)
            if each["unique"] and (among_some or not any("where" in option for option in each.get("dialect_options", {})))
        ]
        return [primary, *constraints, *indexes]

    @abstractmethod
    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        """What the columns of a table can hold in this session, by name; empty for a table that is not there."""

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        """What the driver tells of a table's columns with a result: cheap, and another one when their types change."""
        result = self._execute(connection, f"SELECT * FROM {self.qualified(schema, table)} WHERE 1 = 0")
        cursor: Any = result.cursor
        described = tuple(map(tuple, cursor.description)), getattr(cursor, "description_flags", None)
        result.close()
        return described

    def default_schema(self, connection: sa.Connection) -> str | None:
        """The schema that a spec without one means; None where a connection has just one."""
        return None

    def columns(self, connection: sa.Connection, schema: str | None, table: str) -> list[str]:
        """The column names of a table, in their order."""
        return [each["name"] for each in sa.inspect(connection).get_columns(table, schema=schema)]

    def row_count(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """The exact number of rows."""
        return int(self._execute(connection, f"SELECT count(*) FROM {self.qualified(schema, table)}").scalar_one())

    def has_rows(self, connection: sa.Connection, schema: str | None, table: str) -> bool:
        """Whether there is any row."""
        return bool(self._execute(connection, f"SELECT EXISTS (SELECT 1 FROM {self.qualified(schema, table)})").scalar_one())

    @abstractmethod
    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """About how many rows there are, from statistics, without reading the table."""

    def extent(self, connection: sa.Connection, schema: str | None, table: str) -> Extent | None:
        """About how large a table is now, from statistics, also while it is being filled; None if there is no such table."""
        if not self.table_exists(connection, schema, table):
            return None
        return Extent(self.row_estimate(connection, schema, table), self.table_bytes(connection, schema, table))

    @abstractmethod
    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """What stays the same when a table is renamed, and differs for a new table of its name.

        None if there is no such table, or where we may not know; the ledger's word alone counts then.
        """

    identity_lost_by: ClassVar[str | None] = None
    """Statements that give a table another identity though it is the same one to its users; None: there are none."""

    identity_untold: ClassVar[str] = "this account is not told"
    """Why :meth:`identities` does not know a table, as the beginning of a sentence."""

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        """What tells several tables from others of their names, by name, also when they are altered; as :meth:`identity`."""
        return {table: self.identity(connection, schema, table) for table in tables}

    @property
    @abstractmethod
    def refuses(self) -> tuple[str, ...]:
        """The kinds of objects that :meth:`cannot_carry` speaks of."""

    @abstractmethod
    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Objects on the blue tables that a rebuild would lose or break, each with its reason and remedy."""

    @abstractmethod
    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        """A fingerprint of what hangs on blue and green, from the catalogs in a few questions: writers may be waiting.

        It differs as soon as anything differs that :meth:`cannot_carry` or :meth:`before_switch` looks at, except what
        :meth:`switch` compares by itself.
        """

    @abstractmethod
    def carried(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Carried]:
        """What hangs on the blue tables, by name; all of it will be there after a rebuild as it was before."""

    @abstractmethod
    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        """The tables that foreign keys of this table point to, itself left out."""

    @abstractmethod
    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        """The whole schema in the database's own words, object by object, without the ledger: what a rebuild must not change."""

    @abstractmethod
    def active_sessions(self, connection: sa.Connection) -> int | None:
        """Sessions of this database that are executing a statement, ours left out; None where nobody counts them."""

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        """How often the blue tables have been read since the server began to count; None where nobody counts.

        What is counted differs: scans on PostgreSQL, rows on MySQL and MariaDB.
        """
        return None

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """Seconds since the oldest query or transaction of others began that has touched a blue table; 0: there is none.

        None where nobody knows.
        """
        return None

    def replica_lag(self, connection: sa.Connection) -> float | None:
        """Seconds by which the slowest replica of this server is behind; 0: there is none. None where nobody knows."""
        return None

    # Preflight --------------------------------------------------------------------------------------------------

    def too_old(self, connection: sa.Connection) -> list[Finding]:
        """Whether the server lacks what the other verbs need; nothing else can be asked of it then."""
        oldest, version = self._oldest(), tuple(connection.dialect.server_version_info or ())
        if version >= oldest:
            return []
        said, needed = (".".join(map(str, each)) for each in (version, oldest))
        problem = f"this is version {said}; rebuilds need {needed} or a newer one"
        return [Finding(about="server", problem=problem, remedy="upgrade it", refuses=True)]

    @abstractmethod
    def _oldest(self) -> tuple[int, ...]:
        """The first server version that has all that is used."""

    @abstractmethod
    def preflight(self, connection: sa.Connection, surroundings: Surroundings) -> list[Finding]:
        """What of the server's settings, our rights and the tables' keys is in the way of a rebuild, or weakens it."""

    @abstractmethod
    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        """Rights that reading, settling and fencing the event store need, and that we do not have."""

    @abstractmethod
    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        """About how many bytes a table takes with its indexes."""

    def free_bytes(self, connection: sa.Connection) -> int | None:
        """How many bytes the database can still grow by; None where the server does not tell."""
        return None

    # Another structure ------------------------------------------------------------------------------------------

    @abstractmethod
    def try_structure(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> AbstractContextManager[Trial]:
        """Executes what makes a new structure, apart from everything that is live, and forgets it with the context.

        :param statements: with live names, to be executed as they stand
        :param views: new queries for views over the tables
        """

    # Tables apart -----------------------------------------------------------------------------------------------

    @abstractmethod
    def scratch(self, name: str) -> AbstractContextManager[Scratch]:
        """An empty place for tables of our own; it goes with the context, whatever ends that. What one that was killed has left goes first.

        :param name: of the place; nobody else has one of this name, and who comes second waits
        :raises TablesBusy: the first one has not come to its end
        """

    @contextmanager
    def _schema_apart(self, name: str, reserve: str, make: str, drop: str) -> Iterator[Scratch]:
        """A place that is a schema.

        :param reserve: a query by which a session takes a name until its end; 1 or true if it has it
        """
        with self.connect() as connection:
            # Else the pool would keep the session, and with it the name.
            connection.detach()
            wait_for(lambda: bool(self._execute(connection, reserve, name).scalar_one()))
            try:
                for statement in (drop, make):
                    self.run(connection, statement)
                yield Scratch(self, name)
            finally:
                self.renew(connection)
                self.run(connection, drop)

    def enter(self, connection: sa.Connection, scratch: Scratch) -> None:  # noqa: B027 - most have schemas, SQLite has none
        """From here on a table without a schema is one of the place, until this connection is closed for good."""

    def bring(self, scratch: Scratch, table: str, position: str, upto: int) -> None:  # noqa: B027 - a schema is beside the others
        """Sees to it that SQL in a place of this database finds a live table, up to a position; nothing to do where it finds it anyway."""

    @abstractmethod
    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        """Statements that make an empty table like a live one in another place, maybe of another server: with its columns, checks and unique
        keys, under its name; without foreign keys and triggers, and with counters of its own."""

    # Making green -----------------------------------------------------------------------------------------------

    @abstractmethod
    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that make an empty green table like blue, or of its form, with its key, without secondary indexes and foreign keys."""

    @abstractmethod
    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green the indexes it still lacks, under names of its own, and take away those that blue has no more."""

    @abstractmethod
    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Statements that give green the foreign keys it still lacks, to the green tables of the run where there are."""

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        """Foreign keys that rows of green violate, where the database does not say so by itself in :meth:`constrain_green`."""
        return []

    @abstractmethod
    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Statements that give green fresh statistics, of the kinds that blue has."""

    def drop_table(self, connection: sa.Connection, table: TableSet, name: str) -> list[str]:
        """Statements that drop a table with what a rebuild has hung on it, and nothing of anybody else.

        :param name: green's or old's
        """
        return [f"DROP TABLE {self.qualified(table.schema, name)}"]

    # Switching --------------------------------------------------------------------------------------------------

    def forecast_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """Seconds that the part of a switch will take that cannot be given up once it has begun; None: it can, or takes no time."""
        return None

    def before_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that take long and are done while nobody waits: the last of what green needs to take blue's place."""
        return []

    @abstractmethod
    def hold(
        self, connection: sa.Connection, tables: Sequence[TableSet], manners: Manners, beside: Sequence[str]
    ) -> AbstractContextManager[None]:
        """Holds the blue tables for the switch, in one transaction where DDL can be rolled back; commits at the end.

        Where :attr:`holds_tables` is False, a fence has to keep the writers from the tables; they may be held besides, to have
        a moment in which nobody uses them, but neither with a promise, nor against the statement of the switch itself.

        :param beside: our own tables in the same schema, which are written meanwhile
        :raises TablesBusy: as an error that :meth:`lock_was_refused` knows
        """

    @contextmanager
    def alone(self, connection: sa.Connection, name: str, patience: timedelta = timedelta(0)) -> Iterator[bool]:
        """Keeps other workers of a run from its switch, and from judging what has come of it, where a transaction does not: from the
        moment when the ledger says that it begins until its tables are renamed.

        :param name: the run's
        :param patience: how long another one is waited for
        :returns: whether nobody else is at it
        """
        yield True

    @abstractmethod
    def take_back(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that give retired tables, and what hangs on their names, the names of green ones: a switch's other half."""

    @abstractmethod
    def snapshots(self, connection: sa.Connection) -> dict[Hashable, str]:
        """Open transactions of others that go on reading from one snapshot: how each is told from later ones, and its description.

        Empty where such a transaction keeps seeing the tables of its time, or where we may not know.
        """

    def maintenance(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> list[str]:
        """Who holds a lock on these tables that lasts as long as some maintenance does, and is in a switch's way; described."""
        return []

    def abandoned(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Rows of tables outside the run that would lose their parents by the switch, once all is drained, each kind with its remedy.

        Only where nothing else holds their foreign keys against green.
        """
        return []

    @abstractmethod
    def switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        """Statements that rename blue to old and green to blue, all tables at once, with what hangs on their names.

        :param planned: for a plan: green may be missing, or be another run's in the making
        :raises CloneError: blue has been changed since green was made like it
        """

    def run_switch(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], manners: Manners
    ) -> bool:
        """Executes the statements of :meth:`switch`, and looks at the clock between them.

        :returns: whether the fence held until the tables were switched; False: it may have died just before
        :raises TablesBusy: nothing has changed; as after an error that :meth:`lock_was_refused` knows
        :raises FenceDied: nothing has changed
        :raises PauseTooLong: nothing has changed, or the transaction around it has to be rolled back
        """
        for statement in statements:
            manners.stay_in_time()
            self._execute(connection, statement)
        manners.stay_in_time()
        self._still_fenced(manners)
        return True

    def _still_fenced(self, manners: Manners) -> None:
        if manners.fence is not None and not manners.fence.holds():
            raise FenceDied

    def left_on_old(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """What is on a retired table and not on the live one, since somebody came in between the last look and the switch."""
        return []

    @abstractmethod
    def after_switch(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        """Statements that put right what could not be renamed within the switch; those that are left, after a crash.

        Where DDL commits by itself they are first tried while the writers are still held.
        """

    def planned_after_switch(self, connection: sa.Connection, tables: Sequence[TableSet], *, planned: bool = False) -> list[str]:
        """What :meth:`after_switch` will return, worked out before the tables have been switched; asked for right after :meth:`switch`.

        :param planned: as there; green is then taken as it will be, however far it has come
        """
        return []

    def run_at_work(self, connection: sa.Connection, tables: Sequence[TableSet], statement: str, timeout: timedelta) -> None:
        """Executes a statement of :meth:`after_switch`. Others may queue behind it, so it takes no longer than ``timeout``.

        :raises TablesBusy: as after an error that :meth:`lock_was_refused` knows, trying again can help
        """
        self.run(connection, statement)

    # Rows -------------------------------------------------------------------------------------------------------

    def insert_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> None:
        """Inserts rows in the caller's transaction; a key that is there already is the database's error."""
        self._insert(connection, schema, table, kind, bound(kind, rows, self.binds))

    def _insert(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Rows as the driver takes them."""
        marks = ", ".join([self._mark] * len(kind.columns))
        self._many(connection, f"INSERT INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})", rows)

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        """Inserts many rows the fastest way that this database has, in the caller's transaction."""
        self.insert_rows(connection, schema, table, kind, rows)

    def update_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """Sets the columns of rows that exist, found by their key.

        :returns: how many it has found, at least; all of them where there is nothing to set
        """
        if set(kind.columns) > set(kind.key):
            return self._many(connection, *self._update(schema, table, kind, rows))
        return len(rows)

    def _update(self, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> tuple[str, list[Values]]:
        """The statement, and its values for each row."""
        changed = [name for name in kind.columns if name not in kind.key]
        order = [kind.columns.index(name) for name in (*changed, *kind.key)]
        sets = ", ".join(f"{self.quote(name)} = {self._mark}" for name in changed)
        statement = f"UPDATE {self.qualified(schema, table)} SET {sets} WHERE {self._key_match(kind)}"
        return statement, [tuple(row[at] for at in order) for row in bound(kind, rows, self.binds)]

    def check_deferred(self, connection: sa.Connection) -> None:  # noqa: B027 - most databases defer nothing
        """Checks now what would otherwise be checked at the commit, whose error nobody could tell from a lost connection's."""

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        """As :meth:`update_rows`, the fastest way that this database has."""
        return self.update_rows(connection, schema, table, kind, rows)

    def set_column(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, key: Key, column: str, value: Any
    ) -> None:
        """Sets one column of one row, found by its key."""
        found = bound_keys(kind, [column, *kind.key], [(value, *key)], self.binds)
        statement = (
            f"UPDATE {self.qualified(schema, table)} SET {self.quote(column)} = {self._mark} WHERE {self._key_match(kind)}"
        )
        self._many(connection, statement, found)

    def highest(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> Any:
        """The highest value of a column, as the driver gives it."""
        return self._execute(connection, f"SELECT max({self.quote(column)}) FROM {self.qualified(schema, table)}").scalar()

    def delete_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Sequence[Key]) -> int:
        """Deletes rows by their key.

        :returns: how many
        """
        statement = f"DELETE FROM {self.qualified(schema, table)} WHERE {self._key_match(kind)}"
        return self._many(connection, statement, bound_keys(kind, kind.key, keys, self.binds))

    def select_rows(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, keys: Iterable[Key], *, lock: bool = False
    ) -> Iterator[Values]:
        """The rows that exist among these keys; ``lock``: against other writers until the transaction ends."""
        wanted = bound_keys(kind, kind.key, list(keys), self.binds)
        yield from self._select(connection, schema, table, kind, kind.key, wanted, lock)

    def select_where(
        self,
        connection: sa.Connection,
        schema: str | None,
        table: str,
        kind: RowType,
        column: str,
        values: Iterable[Any],
        *,
        lock: bool = False,
    ) -> Iterator[Values]:
        """The rows whose column has one of these values; None is NULL."""
        given = [*values]
        if None in given:
            # Nothing is equal to NULL, so that no list of values finds it.
            missing = f"SELECT {self._read_list(kind)} FROM {self.qualified(schema, table)} WHERE {self.quote(column)} IS NULL"
            found = self._execute(connection, missing + (self.row_lock if lock else ""))
            yield from loaded(kind, [tuple(row) for row in found])
        wanted = bound_keys(kind, [column], [(value,) for value in given if value is not None], self.binds)
        yield from self._select(connection, schema, table, kind, [column], wanted, lock)

    def insert_if_absent(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, row: Values) -> None:
        """Inserts one row unless its key is there; waits for a concurrent writer of that key."""
        marks = ", ".join([self._mark] * len(kind.columns))
        values = bound(kind, [row], self.binds)[0]
        into = f"INTO {self.qualified(schema, table)} ({self._list(kind.columns)}) VALUES ({marks})"
        self._execute(connection, self._absent_insert(into, kind), *values)

    def _absent_insert(self, into: str, kind: RowType) -> str:
        return f"INSERT {into} ON CONFLICT ({self._list(kind.key)}) DO NOTHING"

    row_lock: ClassVar[str] = " FOR UPDATE"

    def _select(
        self,
        connection: sa.Connection,
        schema: str | None,
        table: str,
        kind: RowType,
        columns: Sequence[str],
        wanted: Sequence[Key],
        lock: bool,
    ) -> Iterator[Values]:
        """The rows in which these columns have one of the wanted values."""
        left = f"({self._list(columns)})" if len(columns) > 1 else self.quote(columns[0])
        mark = "(" + ", ".join([self._mark] * len(columns)) + ")" if len(columns) > 1 else self._mark
        head = f"SELECT {self._read_list(kind)} FROM {self.qualified(schema, table)} WHERE {left} IN "
        for start in range(0, len(wanted), KEYS_PER_STATEMENT):
            some = wanted[start : start + KEYS_PER_STATEMENT]
            statement = head + self._values_list(mark, len(some)) + (self.row_lock if lock else "")
            flat = [value for each in some for value in each]
            yield from loaded(kind, [tuple(row) for row in self._execute(connection, statement, *flat)])

    def _read_list(self, kind: RowType) -> str:
        """What is selected of a row, in the order of its columns."""
        return self._list(kind.columns)

    def _values_list(self, mark: str, count: int) -> str:
        return "(" + ", ".join([mark] * count) + ")"

    def _key_match(self, kind: RowType) -> str:
        return " AND ".join(f"{self.quote(name)} = {self._mark}" for name in kind.key)

    def _many(self, connection: sa.Connection, statement: str, rows: Sequence[Values]) -> int:
        """How many rows it has come to, as far as the driver tells."""
        return connection.exec_driver_sql(statement, list(rows)).rowcount if rows else 0

    # Comparing --------------------------------------------------------------------------------------------------

    @abstractmethod
    def differs(self, left: str, right: str) -> str:
        """A condition: two columns differ, NULL being equal to NULL."""

    def same(self, left: str, right: str) -> str:
        """A condition: two columns are equal, whose types may be different ones."""
        return f"{left} = {right}"

    # The second opinion -----------------------------------------------------------------------------------------

    @property
    def mark(self) -> str:
        """What stands for a bound value in a statement of this driver."""
        return self._mark

    @abstractmethod
    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        """The bytes of a text in UTF-8, so that no two texts are one, whatever their collation says. Some databases return them as a text."""

    @abstractmethod
    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        """A column in a form of which the driver makes nothing: JSON and times are text, or bytes that hold it."""

    @abstractmethod
    def temporary(self, schema: str | None, name: str) -> str:
        """The name of a table that only this connection sees, quoted.

        :param schema: that of the table which it is made like
        """

    @abstractmethod
    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        """Statements that make an empty temporary table of some of a table's columns, each of its own type and collation.

        It has no constraint, and before these columns a whole number, ``projection_rebuild_row``, by which its rows are found.
        """

    def drop_temporary(self, schema: str | None, name: str) -> str:
        """A statement that drops such a table, if it is there, and nothing that others see."""
        return f"DROP TABLE IF EXISTS {self.temporary(schema, name)}"

    @abstractmethod
    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        """A field of a payload of JSON as text, in the shortest way that this database has; the last one, if the payload has it twice.

        Some databases fail on what is no JSON, or no text.
        """

    def given(self, value: Any) -> Any:
        """A value of a row as the driver takes it for a column of any type, which the database then makes its own of."""
        convert = self.binds.get(type(value))
        return value if convert is None else convert(value)

    # Parts ------------------------------------------------------------------------------------------------------

    def copy_others(self, connection: sa.Connection, table: TableSet, column: str, listed: Listed) -> None:
        """Copies every row of blue whose column is not listed to green, with all of its columns, in the caller's transaction."""
        columns = self._list(self._stored_columns(connection, table))
        blue, green = self.qualified(table.schema, table.blue), self.qualified(table.schema, table.green)
        self._execute(
            connection,
            f"INSERT INTO {green} ({columns}){self.overriding} SELECT {columns} FROM {blue} b WHERE NOT "
            + self._is_listed("b", column, listed),
            listed.part_id,
        )

    overriding: ClassVar[str] = ""

    def delete_listed(self, connection: sa.Connection, table: TableSet, column: str, listed: Listed) -> None:
        """Deletes the rows of green whose column is listed, in the caller's transaction."""
        green = self.qualified(table.schema, table.green)
        self._execute(connection, f"DELETE FROM {green} WHERE " + self._is_listed(green, column, listed), listed.part_id)

    def distinct(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> set[str]:
        """The values of a column, as text."""
        text = self.as_text(self.quote(column))
        found = self._execute(connection, f"SELECT DISTINCT {text} FROM {self.qualified(schema, table)}").scalars()
        return {str(value) for value in found if value is not None}

    def _is_listed(self, row: str, column: str, listed: Listed) -> str:
        keys = self.qualified(listed.schema, listed.table)
        text = self.as_text(f"{row}.{self.quote(column)}")
        return f"EXISTS (SELECT 1 FROM {keys} k WHERE k.part_id = {self._mark} AND k.part_key = {text})"

    @abstractmethod
    def as_text(self, expression: str) -> str:
        """A column as the text that Python makes of its value, for the types ``str``, ``int``, ``date`` and ``UUID``."""

    @abstractmethod
    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        """Blue's columns without those that the database works out from others."""

    time_grain: ClassVar[timedelta] = timedelta(0)
    """How far :meth:`before` may be out."""

    def no_time(self, quoted: str) -> str | None:
        """A condition: a text is none that :meth:`before` knows for a time. None: this database has types for times."""
        return None

    @abstractmethod
    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        """A condition: a column that holds a time, or its text (UTC where it has no offset), lies before a moment."""

    # The event store --------------------------------------------------------------------------------------------

    @abstractmethod
    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        """The highest position below which nothing can commit any more; the beginning for an empty store.

        :raises SettleTimeout: appends in flight did not end within ``patience``
        """

    @abstractmethod
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> AbstractContextManager[Fence]:
        """Holds appends back as long as the context lasts; within it every append is visible or has not begun.

        :param timeout: the longest wait for it
        :param longest: for how long it may stand; past it the server should give it up by itself, should we be gone without a word
        """

    def read(self, connection: sa.Connection, query: sa.Select[Any], size: int) -> Generator[list[tuple[Any, ...]], None, None]:
        """A query's rows as the driver makes them, so many at a time.

        Where the database can, it makes the next ones while the caller works on some.
        """
        # All at once, and past SQLAlchemy's rows: a statement that stays open would be in the way of a writer in the same file.
        with connection.execute(query) as result:
            cursor: Any = result.cursor
            rows = cursor.fetchall()
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def reads_json(self, kind: ColumnKind) -> bool:
        """Whether :meth:`json_field` can be asked of a column of this kind."""
        return True

    @abstractmethod
    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        """A field of a JSON object, as text; null where there is none, and where the payload is no JSON: that is no error here."""

    @abstractmethod
    def equals_bytes(self, quoted: str) -> str:
        """A condition: a column of text has the bytes of a bound text, whatever its collation says."""

    @abstractmethod
    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        """A number below ``count``, always the same for the same text."""

    def is_in_shard(self, text: sa.ColumnElement[str], number: int, count: int) -> sa.ColumnElement[bool]:
        """Whether a text is of one of ``count`` shards."""
        return self.shard_number(text, count) == number

    def _still_there(self, connection: sa.Connection) -> bool:
        try:
            self._execute(connection, "SELECT 1")
        except sa.exc.SQLAlchemyError:
            return False
        return True

    def newest_position(self, connection: sa.Connection, schema: str | None, table: str, position_column: str) -> Place:
        """The highest position that is visible now; the beginning for an empty table."""
        statement = f"SELECT max({self.quote(position_column)}) FROM {self.qualified(schema, table)}"
        found = self._execute(connection, statement).scalar()
        return None if found is None else int(found)

    @abstractmethod
    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        """The types of a table's columns, by name; empty for a table that is not there."""

    def value_kinds(self, connection: sa.Connection, table: str, column: str) -> set[ColumnKind] | None:
        """What a column's values are, NULL left out. None: they are what the column's type says, as in most databases."""
        return None

    @abstractmethod
    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        """What a name stands for: ``table``, or what else the database calls it, such as ``view``; None: nothing."""

    def hands_out_ahead(self, connection: sa.Connection, schema: str | None, table: str, column: str) -> str | None:
        """The name of what gives each session numbers of this column in advance, so that a later event may get a lower one; None: nothing."""
        return None

    @abstractmethod
    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A text that is equal to another one only if their bytes are, whatever its collation says.

        A query may return it as bytes.
        """

    @abstractmethod
    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """The same as :meth:`exact`, as a text that others may group and compare."""

    @abstractmethod
    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """Bytes that hold UTF-8, as text; what other bytes become differs, but is no error of the statement."""

    def as_bytes(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """A text, as bytes where the driver could fail to make a text of it."""
        return text

    @abstractmethod
    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        """Bytes as lower-case hexadecimal digits."""

    def payload(self, column: sa.ColumnElement[Any], kind: ColumnKind) -> sa.ColumnElement[Any]:
        """A column of JSON as a driver hands it over soonest: text or bytes, never an object of the driver's."""
        return column if kind is ColumnKind.BYTES else sa.cast(column, sa.Text)


def died(error: BaseException) -> bool:
    """Whether a connection that was there has ended: one of ours, or one to the event store."""
    return isinstance(error, ConnectionLost) or (isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated)


@contextmanager
def _closed_at_error(connection: sa.Connection) -> Iterator[None]:
    """A connection whose work failed does not go back to the pool: what it may still hold (a lock, a setting) ends with it."""
    try:
        yield
    except BaseException:
        connection.invalidate()
        raise


def own_port(descriptor: int) -> str | None:
    """The port that this end of a connection has; None: it is no internet socket.

    :param descriptor: the connection's
    """
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        name = copy.getsockname()
        return str(name[1]) if copy.family in (socket.AF_INET, socket.AF_INET6) else None
