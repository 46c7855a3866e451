"""Builds the statements of the swap on SQLite: one UPDATE of ``sqlite_master`` renames all tables and indexes.

This module executes nothing in the live database. Each ``ALTER TABLE RENAME`` reads the whole schema again, so a hundred of them take
seconds; the UPDATE causes two reads, for any number of tables. Triggers and views look up a table by its name, so they stay as they are.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.dialects.sqlite import create_table as text
from projection_rebuild.errors import CloneError, changed_since
from projection_rebuild.model.names import GREEN_SUFFIX, OLD_SUFFIX, TableSet, derived

MAX_IDENTIFIER = 1_000
"""A limit of the engine's own: SQLite does not limit the length of names."""

AUTOMATIC = "sqlite_autoindex_"
"""The prefix of the indexes that SQLite creates for a table's keys; the table's name and a number follow."""

_NAMES = "projection_rebuild_names"
"""The engine's temporary table, which lists what the swap renames."""

_BUMP = "projection_rebuild_switch"
"""A view that the swap creates and drops, so that SQLite makes all connections read the schema again."""

Quote = Callable[[str], str]


@dataclass(frozen=True)
class Stored:
    """A row of ``sqlite_master``.

    :param kind: table, index, view or trigger
    :param table: the table that the object belongs to
    :param sql: its CREATE statement; empty for the indexes that SQLite creates for a table's keys
    """

    kind: str
    name: str
    table: str
    sql: str


def green_name(name: str) -> str:
    """The name of a table or an index while it belongs to green."""
    return derived(name, GREEN_SUFFIX, MAX_IDENTIFIER)


def old_name(name: str) -> str:
    """The name of a table or an index after it is retired."""
    return derived(name, OLD_SUFFIX, MAX_IDENTIFIER)


def folded(name: str) -> str:
    """A name in lower case, as SQLite compares names: it folds the 26 letters of ASCII, and no others."""
    return name.translate(_FOLDING)


_FOLDING = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Schema:
    """A snapshot of ``sqlite_master``."""

    def __init__(self, rows: Iterable[Stored]) -> None:
        self._tables: dict[str, Stored] = {}
        self._hanging: dict[tuple[str, str], list[Stored]] = {}
        for stored in rows:
            if stored.kind == "table":
                self._tables[folded(stored.name)] = stored
            else:
                self._hanging.setdefault((stored.kind, folded(stored.table)), []).append(stored)

    @classmethod
    def of(cls, connection: sa.Connection) -> Schema:
        """Reads the schema over a connection."""
        rows = connection.exec_driver_sql("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY rowid")
        return cls(Stored(*row) for row in rows)

    def find(self, name: str) -> Stored | None:
        """The table of this name, in any case; None if the schema has none."""
        return self._tables.get(folded(name))

    def table(self, name: str) -> Stored:
        """The table of this name.

        :raises CloneError: the schema has no table of this name any more
        """
        stored = self.find(name)
        if stored is None:
            raise gone(name)
        return stored

    def children(self) -> list[str]:
        """The tables that may have foreign keys: those whose definition has the word REFERENCES."""
        return [table.name for table in self._tables.values() if "references" in table.sql.lower()]

    def indexes(self, table: str) -> list[Stored]:
        """The indexes of a table that have a CREATE INDEX statement."""
        return [index for index in self._hanging.get(("index", folded(table)), []) if index.sql]

    def automatic(self, table: str) -> list[str]:
        """The numbers in the names of the indexes that SQLite created for a table's keys."""
        names = (index.name for index in self._hanging.get(("index", folded(table)), []) if not index.sql)
        return [name.rpartition("_")[2] for name in names]

    def triggers(self, table: str) -> list[Stored]:
        """The triggers of a table, the oldest first."""
        return self._hanging.get(("trigger", folded(table)), [])

    def statistics(self) -> list[str]:
        """The tables in which ANALYZE stores its statistics."""
        return [name for name in ("sqlite_stat1", "sqlite_stat3", "sqlite_stat4") if name in self._tables]


def gone(table: str) -> CloneError:
    """The error of a run whose live table is missing."""
    return CloneError(f"there is no table {table} any more; plan the rebuild anew")


@dataclass(frozen=True)
class _Renamed:
    """A table or an index that gets another name.

    :param to: its new name
    :param table: the table that it belongs to after the rename
    :param sql: its CREATE statement after the rename; None if it has none
    """

    name: str
    to: str
    table: str
    sql: str | None


class Switch:
    """The swap of the tables of a run, and its reversal.

    :param schema: the current schema
    :param quote: quotes a name
    """

    def __init__(self, schema: Schema, tables: Sequence[TableSet], quote: Quote) -> None:
        self._schema = schema
        self._tables = tables
        self._quote = quote

    def wanted(self, table: TableSet) -> tuple[Stored, list[Stored]]:
        """The definition that green needs, and its indexes, under live names: from the target schema, or blue's."""
        if table.target_schema is None:
            return self._schema.table(table.blue), self._schema.indexes(table.blue)
        return of_definition(table.blue, table.target_schema.definition)

    # Comparing --------------------------------------------------------------------------------------------------

    def refuse_changes(self) -> None:
        """Compares blue's definition with green's. The swap gives green the text of blue's, so green must have the same structure.

        :raises CloneError: an operator changed blue after green was created or retired
        """
        for table in self._tables:
            green = self._schema.find(table.green)
            if green is not None and (changed := self._changed(table, green)):
                raise changed_since(table.blue, table.green, changed)

    def _changed(self, table: TableSet, green: Stored) -> list[str]:
        wanted, indexes = self.wanted(table)
        changed = [] if text.body(green.sql) == text.body(wanted.sql) else ["its columns or constraints"]
        expected = {green_name(index.name): text.with_index_names(index.sql, "?", "?") for index in indexes}
        existing = {index.name: text.with_index_names(index.sql, "?", "?") for index in self._schema.indexes(table.green)}
        names = {green_name(index.name): index.name for index in indexes}
        return changed + [
            f"index {names.get(name, name.removesuffix(GREEN_SUFFIX))}"
            for name in sorted({*expected, *existing})
            if expected.get(name) != existing.get(name)
        ]

    # Swap and reversal ------------------------------------------------------------------------------------------

    def statements(self) -> list[str]:
        """The statements that make blue old, and green blue."""
        counters = [statement for table in self._tables for statement in self._counter(table)]
        renamed = [entry for table in self._tables for entry in [*self._retired(table), *self._made_live(table)]]
        triggers = [trigger for table in self._tables for trigger in self._schema.triggers(table.blue)]
        queries = dict(view for table in self._tables if table.target_schema for view in table.target_schema.views)
        views = [self._view(name, query) for name, query in queries.items()]
        lives = [self._schema.table(table.blue).name for table in self._tables]
        return [*counters, *self._edits(renamed, [*map(_to_the_end, triggers), *views]), *map(self._reading, lives)]

    def take_back(self) -> list[str]:
        """The statements that make old green again."""
        renamed = [entry for table in self._tables for entry in self._returned(table)]
        return [*self._edits(renamed, []), *(self._reading(table.green) for table in self._tables)]

    def _counter(self, table: TableSet) -> list[str]:
        """Statements that let green's AUTOINCREMENT continue from blue's."""
        blue, (wanted, _) = self._schema.table(table.blue), self.wanted(table)
        if not (text.counts(blue.sql) and text.counts(wanted.sql)):
            return []
        green = literal(table.green)
        green_counter = f"SELECT 1 FROM sqlite_sequence WHERE name = {green}"
        of_blue = f"FROM sqlite_sequence WHERE name = {literal(blue.name)}"
        return [
            f"INSERT INTO sqlite_sequence (name, seq) SELECT {green}, seq {of_blue} AND NOT EXISTS ({green_counter})",
            f"UPDATE sqlite_sequence SET seq = max(seq, coalesce((SELECT max(seq) {of_blue}), 0)) WHERE name = {green}",
        ]

    def _retired(self, table: TableSet) -> Iterator[_Renamed]:
        """Blue becomes old. Its foreign keys get old parents, so that they do not block writes to the live ones."""
        blue = self._schema.table(table.blue)
        sql = text.with_parents(blue.sql, lambda name: self._quote(old_name(name)))
        names = {index.name: old_name(index.name) for index in self._schema.indexes(blue.name)}
        yield from self._moved(blue.name, table.old, text.with_table_name(sql, self._quote(table.old)), names)

    def _made_live(self, table: TableSet) -> Iterator[_Renamed]:
        """Green becomes blue. It and its indexes get the exact texts of the live definitions."""
        name, (wanted, indexes) = self._schema.table(table.blue).name, self.wanted(table)
        yield _Renamed(table.green, name, name, wanted.sql)
        yield from _automatic(table.green, name, self._numbers(table))
        yield from (_Renamed(green_name(index.name), index.name, name, index.sql) for index in indexes)

    def _numbers(self, table: TableSet) -> list[str]:
        """The numbers of green's automatic indexes; for a dry run, of those that green will have."""
        if self._schema.find(table.green) is not None:
            return self._schema.automatic(table.green)
        if table.target_schema is None:
            return self._schema.automatic(table.blue)
        memory = sa.create_engine("sqlite://")
        with memory.connect() as apart:
            apart.exec_driver_sql(self.wanted(table)[0].sql)
            numbers = Schema.of(apart).automatic(table.blue)
        memory.dispose()
        return numbers

    def _returned(self, table: TableSet) -> Iterator[_Renamed]:
        old = self._schema.table(table.old)
        names = {index.name: green_name(index.name.removesuffix(OLD_SUFFIX)) for index in self._schema.indexes(old.name)}
        yield from self._moved(old.name, table.green, text.with_table_name(old.sql, self._quote(table.green)), names)

    def _moved(self, name: str, to: str, sql: str, indexes: Mapping[str, str]) -> Iterator[_Renamed]:
        """A table that is renamed together with all of its indexes."""
        yield _Renamed(name, to, to, sql)
        yield from _automatic(name, to, self._schema.automatic(name))
        for index in self._schema.indexes(name):
            new_name = indexes[index.name]
            yield _Renamed(index.name, new_name, to, text.with_index_names(index.sql, self._quote(new_name), self._quote(to)))

    def _edits(self, renamed: Sequence[_Renamed], besides: Sequence[str]) -> list[str]:
        """The edit of the schema, as sqlite.org/lang_altertable.html describes it for changes that leave the content alone.

        :param renamed: the tables and indexes with their new names
        :param besides: further statements that edit ``sqlite_master``
        """
        rows = ",\n  ".join(f"({_listed(entry)})" for entry in renamed)
        counts = any(text.counts(entry.sql) for entry in renamed if entry.sql)
        return [
            f"CREATE VIEW {_BUMP} AS SELECT 1",
            f"DROP VIEW {_BUMP}",
            f"CREATE TEMPORARY TABLE {_NAMES} (name TEXT PRIMARY KEY, becomes TEXT, of_table TEXT, definition TEXT)",
            f"INSERT INTO temp.{_NAMES} VALUES\n  {rows}",
            "PRAGMA writable_schema = 1",
            f"UPDATE sqlite_master SET (name, tbl_name, sql) = {_becomes('sqlite_master.name', 'becomes, of_table, definition')} "
            f"WHERE type IN {_KINDS} AND {_is_renamed('name')}",
            *besides,
            "PRAGMA writable_schema = RESET",
            # These tables hold names as data. The index of a WITHOUT ROWID table's key has the table's name there.
            *(
                [f"UPDATE sqlite_sequence SET name = {_becomes('sqlite_sequence.name')} WHERE {_is_renamed('name')}"]
                if counts
                else []
            ),
            *(
                f"UPDATE {table} SET tbl = {_becomes(f'{table}.tbl')}, idx = coalesce({_becomes(f'{table}.idx')}, idx) "
                f"WHERE {_is_renamed('tbl')}"
                for table in self._schema.statistics()
            ),
            _rolled_back_if(f"becomes NOT IN (SELECT name FROM sqlite_master WHERE type IN {_KINDS})"),
            _rolled_back_if(f"of_table IN (SELECT tbl_name FROM sqlite_master WHERE type IN {_KINDS} AND {_IS_ANOTHER})"),
            f"DROP TABLE temp.{_NAMES}",
        ]

    def _view(self, name: str, query: str) -> str:
        sql = f"CREATE VIEW {self._quote(name)} AS {query}"
        return f"UPDATE sqlite_master SET sql = {literal(sql)} WHERE type = 'view' AND name = {literal(name)}"

    def _reading(self, table: str) -> str:
        """Makes SQLite read the schema again, so that a mistake in it is an error while the transaction can still roll back."""
        return f"SELECT 1 FROM {self._quote(table)} LIMIT 0"


def of_definition(table: str, definition: str) -> tuple[Stored, list[Stored]]:
    """Reads a table of another structure and its indexes from the text of :func:`as_definition`."""
    sql, indexes = json.loads(definition)
    return Stored("table", table, table, sql), [Stored("index", name, table, statement) for name, statement in indexes]


def as_definition(table: Stored, indexes: Sequence[Stored]) -> str:
    """A table's and its indexes' statements as one text, for the plan; see :func:`of_definition`."""
    return json.dumps([table.sql, [(index.name, index.sql) for index in indexes]])


def _automatic(table: str, to: str, numbers: Sequence[str]) -> Iterator[_Renamed]:
    return (_Renamed(f"{AUTOMATIC}{table}_{number}", f"{AUTOMATIC}{to}_{number}", to, None) for number in numbers)


def _to_the_end(trigger: Stored) -> str:
    """Moves a trigger's row behind its new table's row: SQLite reads a schema in the order of its rows."""
    last = "SELECT max(rowid) + 1 FROM sqlite_master"
    return f"UPDATE sqlite_master SET rowid = ({last}) WHERE type = 'trigger' AND name = {literal(trigger.name)}"


def _listed(renamed: _Renamed) -> str:
    sql = "NULL" if renamed.sql is None else literal(renamed.sql)
    return f"{literal(renamed.name)}, {literal(renamed.to)}, {literal(renamed.table)}, {sql}"


def _becomes(column: str, what: str = "becomes") -> str:
    """A subquery for the new values of a renamed object.

    :param column: the column with the current name, qualified, since the temporary table has a column ``name`` too
    :param what: the columns of the temporary table to select
    """
    return f"(SELECT {what} FROM temp.{_NAMES} n WHERE n.name = {column})"


_KINDS = "('table', 'index')"

_IS_ANOTHER = f"name NOT IN (SELECT becomes FROM temp.{_NAMES})"


def _rolled_back_if(mistake: str) -> str:
    """A statement that rolls the transaction back if an object did not get its name, or a table has an index that is not listed.

    A shell goes on after an error, for example where SQLite forbids edits of the schema. After this rollback its COMMIT has no effect.

    :param mistake: a condition on rows of the temporary table; it holds for the wrong ones
    """
    return f"INSERT OR ROLLBACK INTO temp.{_NAMES} (name) SELECT name FROM temp.{_NAMES} WHERE {mistake}"


def _is_renamed(column: str) -> str:
    return f"{column} IN (SELECT name FROM temp.{_NAMES})"


def literal(value: str) -> str:
    """A text as a string constant of SQL."""
    return "'" + value.replace("'", "''") + "'"
