"""SQLite: one writer at a time and transactional DDL, so a switch is one BEGIN IMMEDIATE transaction."""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from projection_rebuild.dialects.base import Dialect, Fence, LockPolicy, Refusal, Scratch, Surroundings, Trial, wait_for
from projection_rebuild.dialects.sqlite import create_table as text
from projection_rebuild.dialects.sqlite import preflight
from projection_rebuild.dialects.sqlite import session as ours
from projection_rebuild.dialects.sqlite.cutover import (
    MAX_IDENTIFIER,
    Schema,
    Stored,
    as_form,
    folded,
    gone,
    green_name,
    of_form,
    old_name,
)
from projection_rebuild.dialects.sqlite.schema_trial import rehearse
from projection_rebuild.dialects.sqlite.single_writer import SingleWriterCutover
from projection_rebuild.dialects.sqlite.swap_statements import SqliteSwapStatements
from projection_rebuild.errors import CloneError
from projection_rebuild.model.column_kinds import ColumnKind, ColumnType
from projection_rebuild.model.findings import Carried, Finding, named
from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place
from projection_rebuild.rows.shapes import Holds, Shape
from projection_rebuild.rows.types import RowType, Values
from projection_rebuild.rows.values import TEXT_BINDS, from_json, json_text

_VALUES = {"integer": ColumnKind.WHOLE, "real": ColumnKind.NUMBER, "text": ColumnKind.TEXT, "blob": ColumnKind.BYTES}
"""What ``typeof`` says of a value."""


def _kind(declared: str) -> ColumnKind:
    """What a column's values are meant to be, by the words of its declaration; SQLite itself binds them to little."""
    name = declared.upper()
    for words, kind in (
        (("INT",), ColumnKind.WHOLE),
        (("CHAR", "CLOB", "TEXT", "UUID"), ColumnKind.TEXT),
        (("BLOB", "BINARY", "BYTEA"), ColumnKind.BYTES),
        (("JSON",), ColumnKind.JSON),
        (("DATE", "TIME"), ColumnKind.TIME),
        (("REAL", "FLOA", "DOUB", "NUM", "DEC"), ColumnKind.NUMBER),
    ):
        if any(word in name for word in words):
            return kind
    return ColumnKind.OTHER


def _holds(declared: str) -> Holds:
    """What a column makes of values by its affinity, which words in its declaration decide, in this order."""
    name = declared.upper()
    for words, holds in (
        (("INT",), Holds.LOOSE),
        (("CHAR", "CLOB", "TEXT"), Holds.KEPT_TEXT),
        (("BLOB",), Holds.OTHER),
        (("REAL", "FLOA", "DOUB"), Holds.LOOSE_REAL),
    ):
        if any(word in name for word in words):
            return holds
    return Holds.LOOSE if name else Holds.OTHER


_ROOTS = "SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"

_UNUSABLE = Refusal(
    "the file cannot be opened, or a parameter of the connection is wrong", "Correct path and extras in the connection"
)

_MEANINGS = {
    "SQLITE_CANTOPEN": Refusal("the file cannot be opened", "Correct the path, or let this process read the file and its folder"),
    "SQLITE_NOTADB": Refusal("the file is no SQLite database, or it is encrypted", "Correct the path in the connection"),
    "SQLITE_CORRUPT": Refusal("the file is damaged", "PRAGMA integrity_check, and restore it"),
    "SQLITE_PERM": Refusal("the file may not be opened", "Let this process read and write the file and its folder"),
}


class SqliteDialect(SqliteSwapStatements, Dialect):
    """See :class:`Dialect`. There is one schema per file."""

    database = "sqlite"
    has_schemas = False
    fixes_types = False
    max_identifier = MAX_IDENTIFIER
    ddl_commits = False
    one_writer = True
    # A tenth of a second: the application's writers wait for as long.
    rows_per_transaction = 20_000
    binds = TEXT_BINDS
    begin = "BEGIN IMMEDIATE"
    row_lock = ""

    # Connections ------------------------------------------------------------------------------------------------

    _writes_utf8 = True
    """Known from the first connection on: the encoding of a file never changes."""

    def why_not_connected(self, error: BaseException) -> Refusal:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        return _MEANINGS.get(getattr(cause, "sqlite_errorname", ""), _UNUSABLE)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        # Reads the head of the file: that it is missing, or no database, shows nowhere before that.
        try:
            self._execute(connection, "PRAGMA schema_version").scalar_one()
        except sa.exc.DBAPIError as error:
            if not self.is_lock_timeout(error):
                raise
        return None

    def set_up(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        # Whoever made the engine may have told its connections to give something else than text and tuples.
        driver.text_factory, driver.row_factory = str, None
        # Before a transaction begins: in one, some of them do nothing.
        for statement in ours.STATEMENTS:
            self._execute(connection, statement).close()
        # SQLite has no hash of its own.
        driver.create_function("projection_rebuild_crc", 1, zlib.crc32, deterministic=True)
        # Its own takes the first of two fields of one name, and handlers meet the last.
        driver.create_function("projection_rebuild_field", 2, _field, deterministic=True)
        self._writes_utf8 = self._execute(connection, "PRAGMA encoding").scalar() == "UTF-8"

    def session(self, connection: sa.Connection) -> list[str]:
        return list(ours.STATEMENTS)

    def session_id(self, connection: sa.Connection) -> int | None:
        return None

    def cancel(self, session_id: int) -> None:
        """Nothing to do: statements run within this process, and :meth:`session_id` gives nothing to cancel."""

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {ours.BUSY_TIMEOUT_MS}")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {max(1, round(timeout.total_seconds() * 1000))}")

    # Looking at tables ------------------------------------------------------------------------------------------

    def unique_keys(
        self, connection: sa.Connection, schema: str | None, table: str, *, among_some: bool = False
    ) -> list[set[str]]:
        # SQLAlchemy's reflection warns of every index over an expression.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})")
        keys: list[set[str | None]] = [{each.name for each in columns if each.pk}]
        for index in self._execute(connection, f"PRAGMA index_list({self.quote(table)})").all():
            if index.unique and (among_some or not index.partial):
                parts = self._execute(connection, f"PRAGMA index_info({self.quote(index.name)})")
                keys.append({part.name for part in parts})
        return [{name for name in names if name is not None} for names in keys if None not in names]

    def shapes(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, Shape]:
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})").all()
        unique = preflight.unique_collations(partial(self._execute, connection), self.quote, table)
        alike = {column: f"collation {collation}" for column, collation in unique if collation != "BINARY"}
        return {each.name: Shape(_holds(each.type), nullable=not each.notnull, alike=alike.get(each.name)) for each in columns}

    def outline(self, connection: sa.Connection, schema: str | None, table: str) -> Hashable:
        # Its results tell no types; the schema's number changes with every definition.
        return self._execute(connection, "PRAGMA schema_version").scalar()

    def row_estimate(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return self.row_count(connection, schema, table)

    identity_lost_by = "VACUUM"
    identity_untold = "with auto_vacuum it is not told"

    def identities(self, connection: sa.Connection, schema: str | None, tables: Sequence[str]) -> dict[str, str | None]:
        # Without the definition, which the switch compares by itself; and at once, as writers may be waiting.
        if self._execute(connection, "PRAGMA auto_vacuum").scalar_one():
            return dict.fromkeys(tables)
        pages = {folded(name): page for name, page in self._execute(connection, _ROOTS)}
        return {table: None if (page := pages.get(folded(table))) is None else str(page) for table in tables}

    def identity(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        # The root page stays through a rename, but a later table may be given it again; so the definition counts too.
        # VACUUM may move the page, and then a drop is refused, never wrong. With auto_vacuum each drop of a table moves that of another
        # one, and there the definition is all that counts.
        query = "SELECT rootpage, sql FROM sqlite_master WHERE type = 'table' AND name = ?"
        found = self._execute(connection, query, table).one_or_none()
        moves = self._execute(connection, "PRAGMA auto_vacuum").scalar_one()
        return (
            None
            if found is None
            else f"{'' if moves else found[0]}:{hashlib.sha256(text.body(found[1]).encode()).hexdigest()[:16]}"
        )

    @property
    def refuses(self) -> tuple[str, ...]:
        return ("virtual table", "taken name", "defensive mode")

    def cannot_carry(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[str]:
        return [*self._virtual(connection, tables), *self._taken(connection, tables), *self._defended(connection)]

    def _virtual(self, connection: sa.Connection, tables: Sequence[TableSet]) -> Iterator[str]:
        for table in tables:
            if text.table_name(self._table(connection, table.blue).sql) is None:
                yield f"{table.blue}: a virtual table cannot be renamed together with its content; leave it out"

    def _taken(self, connection: sa.Connection, tables: Sequence[TableSet]) -> Iterator[str]:
        """Names of indexes are the database's, and views have the same names as tables."""
        query = "SELECT type, tbl_name FROM sqlite_master WHERE name = ? COLLATE NOCASE"
        for table in tables:
            ours = {table.blue, table.green, table.old}
            wanted = [table.green, table.old]
            for index in self._indexes(connection, table.blue):
                wanted += [green_name(index.name), old_name(index.name)]
            if table.form is not None:
                wanted += [each for index in self._wanted(connection, table)[1] for each in (index.name, green_name(index.name))]
            for name in dict.fromkeys(wanted):
                for kind, of in self._execute(connection, query, name):
                    if of not in ours or kind == "view":
                        yield f"{table.blue}: the rebuild needs the name {name}, which is taken by the {kind} of this name; rename it"

    def _defended(self, connection: sa.Connection) -> Iterator[str]:
        # ALTER TABLE alone would write definitions in another way, and could not give foreign keys their parents.
        self._execute(connection, "PRAGMA writable_schema = 1")
        try:
            # Not executed: it would wait for another writer, and fail as if it were not allowed.
            self._execute(connection, "EXPLAIN UPDATE sqlite_master SET sql = sql").close()
        except sa.exc.OperationalError as error:
            if self.is_lock_timeout(error):
                raise
            yield (
                "SQLite keeps the schema from being edited (its defensive mode), so that definitions could not stay as they are; let the "
                "rebuild's connections turn it off (setconfig(SQLITE_DBCONFIG_DEFENSIVE, False), since Python 3.12), or use a Python "
                "whose SQLite does not begin with it"
            )
        finally:
            self._execute(connection, "PRAGMA writable_schema = 0")

    def hanging(self, connection: sa.Connection, tables: Sequence[TableSet]) -> str:
        # It counts each change of the schema, by whomever.
        return str(self._execute(connection, "PRAGMA schema_version").scalar_one())

    def carried(self, connection: sa.Connection, tables: Sequence[TableSet]) -> list[Carried]:
        return [each for table in tables for each in self._carried(connection, self._table(connection, table.blue))]

    def _carried(self, connection: sa.Connection, blue: Stored) -> Iterator[Carried]:
        generated = {2: " (generated)", 3: " (generated)"}
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(blue.name)})").all()
        tables = self._execute(connection, "SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
        mentions = "SELECT name FROM sqlite_master WHERE type = ? AND tbl_name <> ? AND instr(lower(sql), lower(?)) ORDER BY name"
        yield from named(
            blue.name,
            {
                "columns": [each.name + generated.get(each.hidden, "") for each in columns],
                "options": text.options(blue.sql),
                "indexes": [each.name for each in self._indexes(connection, blue.name)],
                "foreign keys to": [parent for parent, _ in self._foreign_keys(connection, blue.name)],
                "foreign keys from": [
                    child
                    for child in tables
                    for parent, _ in self._foreign_keys(connection, child)
                    if parent == blue.name and child != blue.name
                ],
                "triggers": [each.name for each in self._stored(connection, "trigger", blue.name)],
                "views that may read it": self._execute(connection, mentions, "view", blue.name, blue.name).scalars().all(),
                "triggers elsewhere that may use it": self._execute(connection, mentions, "trigger", blue.name, blue.name)
                .scalars()
                .all(),
            },
        )

    def parents(self, connection: sa.Connection, schema: str | None, table: str) -> set[str]:
        keys = self._execute(connection, f"PRAGMA foreign_key_list({self.quote(table)})")
        return {each[2] for each in keys} - {table}

    def definitions(self, connection: sa.Connection, schema: str | None) -> dict[str, str]:
        query = "SELECT type, name, sql FROM sqlite_master WHERE tbl_name NOT LIKE 'projection\\_rebuild%' ESCAPE '\\'"
        return {f"{kind} {name}": sql or "" for kind, name, sql in self._execute(connection, query)}

    def active_sessions(self, connection: sa.Connection) -> int | None:
        return None

    # Preflight --------------------------------------------------------------------------------------------------

    def _oldest(self) -> tuple[int, ...]:
        return preflight.OLDEST

    def preflight(self, connection: sa.Connection, surroundings: Surroundings) -> list[Finding]:
        query = partial(self._execute, connection)
        return [*preflight.of_server(query), *preflight.of_tables(query, self.quote, surroundings)]

    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        # Whoever may open the file may read it, and an append that is visible is settled; who writes holds appends back.
        return list(preflight.of_events(partial(self._execute, connection), table))

    def table_bytes(self, connection: sa.Connection, schema: str | None, table: str) -> int:
        return preflight.size(partial(self._execute, connection), table)

    def free_bytes(self, connection: sa.Connection) -> int | None:
        return preflight.free(partial(self._execute, connection))

    # Another structure ------------------------------------------------------------------------------------------

    @contextmanager
    def try_structure(
        self, connection: sa.Connection, tables: Sequence[TableSet], statements: Sequence[str], views: Mapping[str, str]
    ) -> Iterator[Trial]:
        memory = sa.create_engine("sqlite://")
        try:
            with memory.connect() as apart:
                for statement in statements:
                    self._execute(apart, statement)
                wanted = [each for each in tables if self._find(apart, each.blue)]
                forms = {each.blue: self._written(apart, each.blue) for each in wanted}
                unchanged = {name for name, form in forms.items() if form == self._written(connection, name)}
                refusals = list(rehearse(connection, list(forms), statements, views))
                yield Trial(apart, None, forms, unchanged, dict(views), refusals)
        finally:
            memory.dispose()

    def _written(self, connection: sa.Connection, table: str) -> str:
        return as_form(self._table(connection, table), self._indexes(connection, table))

    def _wanted(self, connection: sa.Connection, table: TableSet) -> tuple[Stored, list[Stored]]:
        """The table that green is to be, and its indexes, under live names: those of its form, or blue's."""
        if table.form is None:
            return self._table(connection, table.blue), self._indexes(connection, table.blue)
        return of_form(table.blue, table.form.definition)

    # Tables apart -----------------------------------------------------------------------------------------------

    @contextmanager
    def scratch(self, name: str) -> Iterator[Scratch]:
        """A file of its own. See :meth:`Dialect.scratch`."""
        path = Path(tempfile.gettempdir()) / f"{name}.db"
        with _held(path.with_suffix(".lock")):
            engine = sa.create_engine(f"sqlite:///file:{quote(str(path))}?uri=true", hide_parameters=True)
            # Nobody needs it any more when this process has died.
            sa.event.listen(engine, "connect", lambda driver, _: driver.execute("PRAGMA synchronous = OFF"))
            try:
                _remove(path)
                yield Scratch(SqliteDialect(engine, self.known_as), None)
            finally:
                engine.dispose()
                _remove(path)

    def bring(self, scratch: Scratch, table: str, position: str, upto: int) -> None:
        with self.connect() as live, scratch.dialect.connect() as connection:
            path = str(self._execute(live, "PRAGMA database_list").first()[2] or "")  # type: ignore[index]
            stored = self._find(live, table)
            # Only for this moment: each transaction would keep the writers of that file waiting.
            self._execute(connection, "ATTACH DATABASE ? AS live", f"file:{quote(path)}?mode=ro")
            if stored is not None:
                self._execute(connection, stored.sql)
            into = f"INSERT INTO main.{self.quote(table)}" if stored else f"CREATE TABLE main.{self.quote(table)} AS"
            some = f"SELECT * FROM live.{self.quote(table)} WHERE {self.quote(position)} <= ?"
            self._execute(connection, f"{into} {some}", upto)
            self._execute(connection, "DETACH DATABASE live")

    def apart(self, connection: sa.Connection, table: TableSet, scratch: Scratch) -> list[str]:
        return [self._table(connection, table.blue).sql, *(each.sql for each in self._indexes(connection, table.blue))]

    # Making green -----------------------------------------------------------------------------------------------

    def create_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Its foreign keys point to greens, there or not: a foreign key of green to a live table would keep the application
        # from deleting there what green still has. The switch puts the live names in.
        wanted, _ = self._wanted(connection, table)
        if text.table_name(wanted.sql) is None:
            raise CloneError(f"the definition of {table.blue} in sqlite_master is not a CREATE TABLE; it cannot be copied")
        return [text.with_table_name(text.with_parents(wanted.sql, self._quoted(green_name)), self.quote(table.green))]

    def index_green(self, connection: sa.Connection, table: TableSet) -> list[str]:
        there = {index.name: text.with_index_names(index.sql, "?", "?") for index in self._indexes(connection, table.green)}
        wanted = self._wanted(connection, table)[1]
        made = {green_name(each.name): text.with_index_names(each.sql, "?", "?") for each in wanted}
        gone = [name for name, said in there.items() if made.get(name) != said]
        return [
            *(f"DROP INDEX {self.quote(name)}" for name in gone),
            *(
                text.with_index_names(index.sql, self.quote(green_name(index.name)), self.quote(table.green))
                for index in wanted
                if green_name(index.name) not in there or green_name(index.name) in gone
            ),
        ]

    def constrain_green(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # A foreign key is part of the table's text and names its parent as it will be called after the switch.
        return []

    def orphans(self, connection: sa.Connection, table: TableSet, run: Sequence[TableSet]) -> list[str]:
        # PRAGMA foreign_key_check would look for parents under the names in the definition, which are still blue.
        greens = {each.blue: each.green for each in run}
        found = []
        for parent, pairs in (
            self._foreign_keys(connection, table.blue) if table.form is None else self._form_keys(connection, table)
        ):
            lost = self._lost(connection, table.green, greens.get(parent, parent), pairs)
            if lost:
                found.append(f"({', '.join(own for own, _ in pairs)}) to {parent}, {lost:,} rows")
        return found

    def _lost(self, connection: sa.Connection, child: str, parent: str, pairs: list[tuple[str, str]], unless: str = "") -> int:
        """Rows of a child that have no parent; not those that have none in the table ``unless`` either."""
        match = " AND ".join(f"p.{self.quote(to)} = c.{self.quote(own)}" for own, to in pairs)
        given = " AND ".join(f"c.{self.quote(own)} IS NOT NULL" for own, _ in pairs)
        query = (
            f"SELECT count(*) FROM {self.quote(child)} c WHERE {given} AND NOT EXISTS "
            f"(SELECT 1 FROM {self.quote(parent)} p WHERE {match})"
        )
        if unless:
            query += f" AND EXISTS (SELECT 1 FROM {self.quote(unless)} p WHERE {match})"
        return int(self._execute(connection, query).scalar_one())

    def analyze(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Whoever has never analyzed this database gets no statistics now: they would be tables that were not there before.
        return [f"ANALYZE {self.quote(table.green)}"] if self._statistics(connection) else []

    # Cutting over -----------------------------------------------------------------------------------------------

    @property
    def cutover(self) -> SingleWriterCutover:
        return SingleWriterCutover(self)

    # Rows -------------------------------------------------------------------------------------------------------

    def load_rows(self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]) -> None:
        columns = self._execute(connection, f"PRAGMA table_info({self.quote(table)})")
        # Rows that the database numbers get their numbers in the order of the events.
        numbered = not {each.name for each in columns if each.pk} <= {*kind.columns}
        super().load_rows(connection, schema, table, kind, rows if numbered else _by_key(kind, rows))

    def update_many(
        self, connection: sa.Connection, schema: str | None, table: str, kind: RowType, rows: Sequence[Values]
    ) -> int:
        return super().update_many(connection, schema, table, kind, _by_key(kind, rows))

    def _values_list(self, mark: str, count: int) -> str:
        # Row values on the left need a VALUES list on the right.
        return f"(VALUES {', '.join([mark] * count)})" if mark.startswith("(") else super()._values_list(mark, count)

    # Comparing --------------------------------------------------------------------------------------------------

    def differs(self, left: str, right: str) -> str:
        return f"{left} IS NOT {right}"

    # The second opinion -----------------------------------------------------------------------------------------

    def exact_bytes(self, quoted: str, kind: ColumnKind) -> str:
        # A file in UTF-16 hands its bytes over in that.
        return f"CAST({quoted} AS BLOB)" if self._writes_utf8 else f"CAST({quoted} AS TEXT) COLLATE BINARY"

    def as_stored(self, quoted: str, kind: ColumnKind) -> str:
        # Of a text that is no UTF-8 the driver makes an error that quotes it.
        return f"CAST({quoted} AS BLOB)" if kind in (ColumnKind.TEXT, ColumnKind.JSON) and self._writes_utf8 else quoted

    def plain_field(self, quoted: str, kind: ColumnKind, field: str) -> str:
        name = field.replace("'", "''")
        # By its path the first one would be found.
        return (
            f"(SELECT CAST(value AS TEXT) FROM json_each(CAST({quoted} AS TEXT)) WHERE key = '{name}' ORDER BY id DESC LIMIT 1)"
        )

    def temporary(self, schema: str | None, name: str) -> str:
        return f"temp.{self.quote(name)}"

    def make_temporary(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str], name: str
    ) -> list[str]:
        declared = {each.name: each.type for each in self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})")}
        collations = self._collations(connection, table)
        body = [
            " ".join([self.quote(each), declared.get(each) or "", f"COLLATE {collations[each]}" if each in collations else ""])
            for each in columns
        ]
        return [f"CREATE TABLE {self.temporary(schema, name)} (projection_rebuild_row INTEGER PRIMARY KEY, {', '.join(body)})"]

    def _collations(self, connection: sa.Connection, table: str) -> dict[str, str]:
        """Of the columns that an index tells it of; those of the others stand in no catalog."""
        indexes = [each.name for each in self._execute(connection, f"PRAGMA index_list({self.quote(table)})")]
        columns = [each for name in indexes for each in self._execute(connection, f"PRAGMA index_xinfo({self.quote(name)})")]
        return {each.name: self.quote(each.coll) for each in columns if each.name is not None and each.key}

    # Parts ------------------------------------------------------------------------------------------------------

    def as_text(self, expression: str) -> str:
        return f"CAST({expression} AS TEXT)"

    def _stored_columns(self, connection: sa.Connection, table: TableSet) -> list[str]:
        # Hidden: 2 and 3 are columns that are worked out.
        found = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table.blue)})")
        return [column[1] for column in found if column[6] == 0]

    time_grain = timedelta(milliseconds=1)

    def no_time(self, quoted: str) -> str | None:
        # `now`, a bare time and a number mean something to it as well.
        day = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
        return f"(typeof({quoted}) <> 'text' OR {quoted} NOT GLOB '{day}' OR strftime('%s', {quoted}) IS NULL)"

    def before(self, column: sa.ColumnElement[Any], moment: datetime) -> sa.ColumnElement[bool]:
        utc = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        return sa.func.strftime("%Y-%m-%d %H:%M:%f", column) < utc

    # The event store --------------------------------------------------------------------------------------------

    def settle(self, schema: str | None, table: str, position_column: str, patience: timedelta) -> Place:
        # One writer at a time hands out positions in the order of commits: what is visible is settled.
        with self.connect() as connection:
            return self.newest_position(connection, schema, table, position_column)

    @contextmanager
    def fence(
        self, schema: str | None, table: str, timeout: timedelta, longest: timedelta = timedelta(seconds=2)
    ) -> Iterator[Fence]:
        with self.connect() as connection, self.cutover.lock_tables(connection, [], LockPolicy(timeout), []):
            yield Fence(lambda: self._still_there(connection))

    def column_types(self, connection: sa.Connection, schema: str | None, table: str) -> dict[str, ColumnType]:
        # A column's collation stands in no catalog, so none is relied on.
        columns = self._execute(connection, f"PRAGMA table_xinfo({self.quote(table)})").all()
        return {each.name: ColumnType(each.type or "no type", _kind(each.type), False, not each.notnull) for each in columns}

    def value_kinds(self, connection: sa.Connection, table: str, column: str) -> set[ColumnKind] | None:
        query = f"SELECT DISTINCT typeof({self.quote(column)}) FROM {self.quote(table)}"
        return {_VALUES[name] for name in self._execute(connection, query).scalars() if name != "null"}

    def relation_kind(self, connection: sa.Connection, schema: str | None, table: str) -> str | None:
        query = "SELECT type, sql FROM sqlite_master WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE"
        found = self._execute(connection, query, table).one_or_none()
        if found is None or found.type == "view":
            return None if found is None else "view"
        return "virtual table" if text.table_name(found.sql) is None else "table"

    def exact(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.collate(sa.cast(text, sa.Text), "BINARY")

    def exact_text(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        # A column of a subquery hands its collation on, also through CAST.
        return self.exact(text)

    def utf8(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.cast(column, sa.Text)

    def as_bytes(self, text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        # Of text that is no UTF-8 the driver makes an error that quotes it. A file in UTF-16 hands its bytes over in that.
        return sa.cast(text, sa.LargeBinary) if self._writes_utf8 else text

    def hexadecimal(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
        return sa.func.lower(sa.func.hex(column), type_=sa.Text)

    def payload(self, column: sa.ColumnElement[Any], kind: ColumnKind) -> sa.ColumnElement[Any]:
        return self.as_bytes(column)

    def json_field(self, payload: sa.ColumnElement[Any], kind: ColumnKind, field: str) -> sa.ColumnElement[str]:
        return sa.func.projection_rebuild_field(payload, field, type_=sa.Text)

    def equals_bytes(self, quoted: str) -> str:
        return f"{quoted} COLLATE BINARY = ?"

    def shard_number(self, text: sa.ColumnElement[str], count: int) -> sa.ColumnElement[int]:
        return sa.func.projection_rebuild_crc(sa.cast(text, sa.LargeBinary), type_=sa.Integer) % count

    # Catalogs ---------------------------------------------------------------------------------------------------

    def _quoted(self, rename: text.Rename) -> text.Rename:
        return lambda name: self.quote(rename(name))

    def _find(self, connection: sa.Connection, table: str) -> Stored | None:
        # SQLite takes Orders and orders for the same name; which one it is stands here.
        query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
        found = self._execute(connection, query, table).one_or_none()
        return None if found is None else Stored(*found)

    def _table(self, connection: sa.Connection, table: str) -> Stored:
        found = self._find(connection, table)
        if found is None:
            raise gone(table)
        return found

    def _stored(self, connection: sa.Connection, kind: str, table: str) -> list[Stored]:
        query = """SELECT type, name, tbl_name, sql FROM sqlite_master
                   WHERE type = ? AND tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL ORDER BY rowid"""
        return [Stored(*found) for found in self._execute(connection, query, kind, table)]

    def _indexes(self, connection: sa.Connection, table: str) -> list[Stored]:
        """The indexes that were made by a statement of their own; a table's keys have others, which follow its name."""
        return self._stored(connection, "index", table)

    def _form_keys(self, connection: sa.Connection, table: TableSet) -> list[tuple[str, list[tuple[str, str]]]]:
        """As :meth:`_foreign_keys`, of a table that is not live yet; its parents are."""
        wanted, _ = self._wanted(connection, table)
        memory = sa.create_engine("sqlite://")
        with memory.connect() as apart:
            self._execute(apart, wanted.sql)
            found = self._pairs(apart, table.blue, connection, partial(self._find, connection))
        memory.dispose()
        return found

    def _foreign_keys(self, connection: sa.Connection, table: str) -> list[tuple[str, list[tuple[str, str]]]]:
        """Parent and pairs of columns, the table's own first."""
        return self._pairs(connection, table, connection, partial(self._find, connection))

    def _pairs(
        self, connection: sa.Connection, table: str, parents: sa.Connection, find: Callable[[str], Stored | None]
    ) -> list[tuple[str, list[tuple[str, str]]]]:
        """:param find: finds a parent, among ``parents``"""
        keys: dict[int, list[Any]] = {}
        for key in self._execute(connection, f"PRAGMA foreign_key_list({self.quote(table)})"):
            keys.setdefault(key[0], []).append(key)
        found = []
        for parts in keys.values():
            parent = find(parts[0][2])
            if parent is not None:
                # A key that names no columns points to the parent's primary key.
                implied = [] if parts[0][4] else sa.inspect(parents).get_pk_constraint(parent.name)["constrained_columns"]
                if not parts[0][4] and len(implied) != len(parts):
                    # Nobody can follow it, SQLite included; the plan refuses it where it is a read model's.
                    continue
                found.append((parent.name, [(each[3], each[4] or implied[at]) for at, each in enumerate(parts)]))
        return found

    def _statistics(self, connection: sa.Connection) -> list[str]:
        return Schema.of(connection).statistics()


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """A file that one process at a time has; it is free again when that one ends, however it ends."""

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


def _field(payload: str | bytes | None, name: str) -> str | None:
    """A field of a payload as handlers get it, as text; None: there is none, or the payload is no object of JSON."""
    try:
        found = from_json(payload)
        value = found.get(name) if isinstance(found, dict) else None
        told = value if isinstance(value, str) else None if value is None else json_text(value)
        return None if told is None else told.encode().decode()
    except (ValueError, TypeError, RecursionError):
        # Neither what is no JSON nor what is no Unicode says where it belongs.
        return None


def _by_key(kind: RowType, rows: Sequence[Values]) -> Sequence[Values]:
    """In this order the key's index is gone through once; a connection keeps few of its pages in memory."""
    try:
        return sorted(rows, key=itemgetter(*map(kind.columns.index, kind.key)))
    except TypeError:
        # Python knows no order of theirs.
        return rows
