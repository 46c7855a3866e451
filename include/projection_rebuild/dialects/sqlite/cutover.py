"""The switch on SQLite: one pass over ``sqlite_master`` gives all tables and indexes their names and texts. Plain SQL, nothing is executed.

An ``ALTER TABLE RENAME`` reads the whole schema anew, so that a hundred of them take seconds. The pass reads it twice, whatever the
number of tables. Triggers and views look up a table by its name, so they stay as they are.
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
"""SQLite's names have no limit of their own."""

AUTOMATIC = "sqlite_autoindex_"
"""Begins the names of the indexes that SQLite makes for a table's keys: the table's name and a number follow."""

_NAMES = "projection_rebuild_names"
"""Our temporary table of what is renamed."""

_BUMP = "projection_rebuild_switch"
"""A view that is made and dropped: SQLite itself then tells all connections that the schema is another one."""

Quote = Callable[[str], str]


@dataclass(frozen=True)
class Stored:
    """A row of ``sqlite_master``.

    :param kind: table, index, view or trigger
    :param table: the table that it belongs to
    :param sql: its statement; empty for the indexes that SQLite makes for a table's keys
    """

    kind: str
    name: str
    table: str
    sql: str


def green_name(name: str) -> str:
    """What a table or an index is called as long as it is green's."""
    return derived(name, GREEN_SUFFIX, MAX_IDENTIFIER)


def old_name(name: str) -> str:
    """What a table or an index is called when it is retired."""
    return derived(name, OLD_SUFFIX, MAX_IDENTIFIER)


def folded(name: str) -> str:
    """SQLite takes Orders and orders for the same name, but knows no other letters than these 26."""
    return name.translate(_FOLDING)


_FOLDING = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class Schema:
    """``sqlite_master`` as it is at one moment."""

    def __init__(self, rows: Iterable[Stored]) -> None:
        self._tables: dict[str, Stored] = {}
        self._hanging: dict[tuple[str, str], list[Stored]] = {}
        for each in rows:
            if each.kind == "table":
                self._tables[folded(each.name)] = each
            else:
                self._hanging.setdefault((each.kind, folded(each.table)), []).append(each)

    @classmethod
    def of(cls, connection: sa.Connection) -> Schema:
        """Reads it."""
        rows = connection.exec_driver_sql("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master ORDER BY rowid")
        return cls(Stored(*each) for each in rows)

    def find(self, name: str) -> Stored | None:
        """A table, in the spelling that it has."""
        return self._tables.get(folded(name))

    def table(self, name: str) -> Stored:
        """As :meth:`find`.

        :raises CloneError: it has gone
        """
        found = self.find(name)
        if found is None:
            raise gone(name)
        return found

    def children(self) -> list[str]:
        """The tables that may have foreign keys: it takes this word to say so."""
        return [each.name for each in self._tables.values() if "references" in each.sql.lower()]

    def indexes(self, table: str) -> list[Stored]:
        """The indexes that were made by a statement of their own."""
        return [each for each in self._hanging.get(("index", folded(table)), []) if each.sql]

    def automatic(self, table: str) -> list[str]:
        """The numbers of the indexes that SQLite has made for a table's keys."""
        found = (each.name for each in self._hanging.get(("index", folded(table)), []) if not each.sql)
        return [name.rpartition("_")[2] for name in found]

    def triggers(self, table: str) -> list[Stored]:
        """The triggers of a table, in the order in which they were made."""
        return self._hanging.get(("trigger", folded(table)), [])

    def statistics(self) -> list[str]:
        """The tables in which ANALYZE keeps what it has found."""
        return [name for name in ("sqlite_stat1", "sqlite_stat3", "sqlite_stat4") if name in self._tables]


def gone(table: str) -> CloneError:
    """The refusal of a run whose live table is not there."""
    return CloneError(f"there is no table {table} any more; plan the rebuild anew")


@dataclass(frozen=True)
class _Renamed:
    """A table or an index that gets another name.

    :param table: the table that it then belongs to
    :param sql: its statement then; None: it has none
    """

    name: str
    to: str
    table: str
    sql: str | None


class Switch:
    """The switch of the tables of a run.

    :param schema: as it is now
    :param quote: quotes a name
    """

    def __init__(self, schema: Schema, tables: Sequence[TableSet], quote: Quote) -> None:
        self._schema = schema
        self._tables = tables
        self._quote = quote

    def wanted(self, table: TableSet) -> tuple[Stored, list[Stored]]:
        """The table that green is to be, and its indexes, under live names: those of its target schema, or blue's."""
        if table.target_schema is None:
            return self._schema.table(table.blue), self._schema.indexes(table.blue)
        return of_definition(table.blue, table.target_schema.definition)

    # Comparing --------------------------------------------------------------------------------------------------

    def refuse_changes(self) -> None:
        """Green gets the live definition to the letter, so it has to be what that says.

        :raises CloneError: blue has been changed since green was made or retired
        """
        for table in self._tables:
            green = self._schema.find(table.green)
            if green is not None and (changed := self._changed(table, green)):
                raise changed_since(table.blue, table.green, changed)

    def _changed(self, table: TableSet, green: Stored) -> list[str]:
        wanted, indexes = self.wanted(table)
        changed = [] if text.body(green.sql) == text.body(wanted.sql) else ["its columns or constraints"]
        expected = {green_name(each.name): text.with_index_names(each.sql, "?", "?") for each in indexes}
        made = {each.name: text.with_index_names(each.sql, "?", "?") for each in self._schema.indexes(table.green)}
        names = {green_name(each.name): each.name for each in indexes}
        return changed + [
            f"index {names.get(name, name.removesuffix(GREEN_SUFFIX))}"
            for name in sorted({*expected, *made})
            if expected.get(name) != made.get(name)
        ]

    # Forth and back ---------------------------------------------------------------------------------------------

    def statements(self) -> list[str]:
        """Blue becomes old, and green becomes blue."""
        counters = [each for table in self._tables for each in self._counter(table)]
        renamed = [each for table in self._tables for each in [*self._retired(table), *self._made_live(table)]]
        triggers = [trigger for table in self._tables for trigger in self._schema.triggers(table.blue)]
        anew = dict(view for table in self._tables if table.target_schema for view in table.target_schema.views)
        views = [self._view(name, query) for name, query in anew.items()]
        lives = [self._schema.table(table.blue).name for table in self._tables]
        return [*counters, *self._passed(renamed, [*map(_to_the_end, triggers), *views]), *map(self._glance, lives)]

    def take_back(self) -> list[str]:
        """Old becomes green."""
        renamed = [each for table in self._tables for each in self._returned(table)]
        return [*self._passed(renamed, []), *(self._glance(table.green) for table in self._tables)]

    def _counter(self, table: TableSet) -> list[str]:
        """AUTOINCREMENT goes on from where blue is."""
        blue, (wanted, _) = self._schema.table(table.blue), self.wanted(table)
        if not (text.counts(blue.sql) and text.counts(wanted.sql)):
            return []
        green = literal(table.green)
        there = f"SELECT 1 FROM sqlite_sequence WHERE name = {green}"
        of_blue = f"FROM sqlite_sequence WHERE name = {literal(blue.name)}"
        return [
            f"INSERT INTO sqlite_sequence (name, seq) SELECT {green}, seq {of_blue} AND NOT EXISTS ({there})",
            f"UPDATE sqlite_sequence SET seq = max(seq, coalesce((SELECT max(seq) {of_blue}), 0)) WHERE name = {green}",
        ]

    def _retired(self, table: TableSet) -> Iterator[_Renamed]:
        """The old one's foreign keys hold nobody up any more."""
        blue = self._schema.table(table.blue)
        sql = text.with_parents(blue.sql, lambda name: self._quote(old_name(name)))
        names = {each.name: old_name(each.name) for each in self._schema.indexes(blue.name)}
        yield from self._moved(blue.name, table.old, text.with_table_name(sql, self._quote(table.old)), names)

    def _made_live(self, table: TableSet) -> Iterator[_Renamed]:
        """The live definitions go to the new table and its indexes to the letter."""
        name, (wanted, indexes) = self._schema.table(table.blue).name, self.wanted(table)
        yield _Renamed(table.green, name, name, wanted.sql)
        yield from _automatic(table.green, name, self._numbers(table))
        yield from (_Renamed(green_name(each.name), each.name, name, each.sql) for each in indexes)

    def _numbers(self, table: TableSet) -> list[str]:
        """Of green's automatic indexes; of those that it will have, where it is only planned."""
        if self._schema.find(table.green) is not None:
            return self._schema.automatic(table.green)
        if table.target_schema is None:
            return self._schema.automatic(table.blue)
        memory = sa.create_engine("sqlite://")
        with memory.connect() as apart:
            apart.exec_driver_sql(self.wanted(table)[0].sql)
            found = Schema.of(apart).automatic(table.blue)
        memory.dispose()
        return found

    def _returned(self, table: TableSet) -> Iterator[_Renamed]:
        old = self._schema.table(table.old)
        names = {each.name: green_name(each.name.removesuffix(OLD_SUFFIX)) for each in self._schema.indexes(old.name)}
        yield from self._moved(old.name, table.green, text.with_table_name(old.sql, self._quote(table.green)), names)

    def _moved(self, name: str, to: str, sql: str, indexes: Mapping[str, str]) -> Iterator[_Renamed]:
        """A table that takes all of its indexes along."""
        yield _Renamed(name, to, to, sql)
        yield from _automatic(name, to, self._schema.automatic(name))
        for each in self._schema.indexes(name):
            index = indexes[each.name]
            yield _Renamed(each.name, index, to, text.with_index_names(each.sql, self._quote(index), self._quote(to)))

    def _passed(self, renamed: Sequence[_Renamed], besides: Sequence[str]) -> list[str]:
        """The pass itself, as sqlite.org/lang_altertable.html describes it for changes that do not concern the content."""
        rows = ",\n  ".join(f"({_listed(each)})" for each in renamed)
        counts = any(text.counts(each.sql) for each in renamed if each.sql)
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
            # Names are data there. An index that is the table itself has the table's name.
            *(
                [f"UPDATE sqlite_sequence SET name = {_becomes('sqlite_sequence.name')} WHERE {_is_renamed('name')}"]
                if counts
                else []
            ),
            *(
                f"UPDATE {each} SET tbl = {_becomes(f'{each}.tbl')}, idx = coalesce({_becomes(f'{each}.idx')}, idx) "
                f"WHERE {_is_renamed('tbl')}"
                for each in self._schema.statistics()
            ),
            _checked(f"becomes NOT IN (SELECT name FROM sqlite_master WHERE type IN {_KINDS})"),
            _checked(f"of_table IN (SELECT tbl_name FROM sqlite_master WHERE type IN {_KINDS} AND {_IS_ANOTHER})"),
            f"DROP TABLE temp.{_NAMES}",
        ]

    def _view(self, name: str, query: str) -> str:
        sql = f"CREATE VIEW {self._quote(name)} AS {query}"
        return f"UPDATE sqlite_master SET sql = {literal(sql)} WHERE type = 'view' AND name = {literal(name)}"

    def _glance(self, table: str) -> str:
        """Reads the schema anew: a mistake in it is an error now, while all of it can still be rolled back."""
        return f"SELECT 1 FROM {self._quote(table)} LIMIT 0"


def of_definition(table: str, definition: str) -> tuple[Stored, list[Stored]]:
    """A table of another structure and its indexes, as :func:`as_definition` has kept them."""
    sql, indexes = json.loads(definition)
    return Stored("table", table, table, sql), [Stored("index", name, table, statement) for name, statement in indexes]


def as_definition(table: Stored, indexes: Sequence[Stored]) -> str:
    """What :func:`of_definition` needs."""
    return json.dumps([table.sql, [(each.name, each.sql) for each in indexes]])


def _automatic(table: str, to: str, numbers: Sequence[str]) -> Iterator[_Renamed]:
    return (_Renamed(f"{AUTOMATIC}{table}_{number}", f"{AUTOMATIC}{to}_{number}", to, None) for number in numbers)


def _to_the_end(trigger: Stored) -> str:
    """A schema is read in the order of its rows, so that triggers have to stand behind the new table's row."""
    last = "SELECT max(rowid) + 1 FROM sqlite_master"
    return f"UPDATE sqlite_master SET rowid = ({last}) WHERE type = 'trigger' AND name = {literal(trigger.name)}"


def _listed(renamed: _Renamed) -> str:
    sql = "NULL" if renamed.sql is None else literal(renamed.sql)
    return f"{literal(renamed.name)}, {literal(renamed.to)}, {literal(renamed.table)}, {sql}"


def _becomes(column: str, what: str = "becomes") -> str:
    """:param column: with its table, as our own has a column of the same name"""
    return f"(SELECT {what} FROM temp.{_NAMES} n WHERE n.name = {column})"


_KINDS = "('table', 'index')"

_IS_ANOTHER = f"name NOT IN (SELECT becomes FROM temp.{_NAMES})"


def _checked(mistake: str) -> str:
    """Undoes all of it where a name was not given, or a table has an index that is not listed.

    A shell goes on behind an error, as where the schema may not be edited, and comes to the COMMIT; after this there is none left.

    :param mistake: says of a row of our table that it is one
    """
    return f"INSERT OR ROLLBACK INTO temp.{_NAMES} (name) SELECT name FROM temp.{_NAMES} WHERE {mistake}"


def _is_renamed(column: str) -> str:
    return f"{column} IN (SELECT name FROM temp.{_NAMES})"


def literal(value: str) -> str:
    """A text as it stands in a statement."""
    return "'" + value.replace("'", "''") + "'"
