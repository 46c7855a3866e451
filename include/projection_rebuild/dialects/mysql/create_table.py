"""Parses the output of SHOW CREATE TABLE on MySQL and MariaDB, and derives the names of green's constraints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

from projection_rebuild.errors import CloneError

LONGEST_NAME = 64
"""The most characters in a name."""

_NAME = r"`((?:[^`]|``)*)`"
_KEY = re.compile(rf"(FULLTEXT |SPATIAL |VECTOR )?KEY {_NAME} (.*)", re.DOTALL)
_NAMED_KEY = re.compile(rf"(?:\w+ )?KEY {_NAME}")
_WHOLE_KEY = re.compile(rf"(?:PRIMARY KEY|UNIQUE KEY {_NAME}) \({_NAME}")
_FOREIGN_KEY = re.compile(rf"CONSTRAINT {_NAME} FOREIGN KEY (\(.*?\)) REFERENCES (?:{_NAME}\.)?{_NAME} (\(.*?\))(.*)")
_CHECK = re.compile(rf"CONSTRAINT {_NAME} CHECK (.*)", re.DOTALL)
_BITS = re.compile(rf"{_NAME} bit\(")
_COUNTER = re.compile(r"(\).*?ENGINE=\w+) AUTO_INCREMENT=(\d+)")
_ENGINE = re.compile(r"\).*?ENGINE=\w+")
_ROW_FORMAT = re.compile(r"([^']*?) ROW_FORMAT=(\w+)")
_QUOTED = r"'(?:[^'\\]|''|\\.)*'"
_STRING = re.compile(_QUOTED)
_COLLATED = re.compile(rf"({_NAME} \w+(?:\((?:[^()']|{_QUOTED})*\))?) COLLATE \w+")
_MARK = 0xE000
"""The first code point of Unicode's private use area, which no alphabet uses."""


@dataclass(frozen=True)
class Index:
    """A secondary index that is not unique.

    :param kind: ``FULLTEXT``, ``SPATIAL``, or empty
    :param clause: the whole definition, as the server writes it
    """

    name: str
    kind: str
    clause: str


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key; columns and actions as the server writes them."""

    name: str
    columns: str
    parent_schema: str | None
    parent: str
    parent_columns: str
    actions: str

    def to(self, parent: str) -> tuple[str, ...]:
        """All but the name, with another parent: two foreign keys are the same if these values are equal."""
        return (self.columns, self.parent_schema or "", parent, self.parent_columns, self.actions)

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of own column and parent's column."""
        own, parents = (re.findall(_NAME, columns) for columns in (self.columns, self.parent_columns))
        return [(_plain(column), _plain(parent)) for column, parent in zip(own, parents, strict=True)]


@dataclass(frozen=True)
class Check:
    """A named CHECK; ``rule`` is the condition and whether the server enforces it."""

    name: str
    rule: str


@dataclass(frozen=True)
class Keyed:
    """The facts about a table from which the engine corrects its foreign keys.

    :param counter: the next AUTO_INCREMENT; 0 if the table has none
    :param counts: whether a column is AUTO_INCREMENT
    :param plain_indexes: the names of the indexes that are neither unique nor of another kind
    """

    counter: int
    counts: bool
    foreign_keys: list[ForeignKey]
    plain_indexes: list[str]


class Definition:
    """The definition of a table by SHOW CREATE TABLE, one clause per line.

    :param statement: the second column of the output; empty for a table that does not exist
    """

    def __init__(self, statement: str) -> None:
        _, *lines = statement.split("\n")
        self.clauses = [line.strip().removesuffix(",") for line in _until_options(lines)]
        self.options = "\n".join(lines[len(self.clauses) :])

    @property
    def counter(self) -> int:
        """The next AUTO_INCREMENT; 0 if the table has none. MySQL's information_schema may be a day behind."""
        match = _COUNTER.match(self.options)
        return int(match[2]) if match else 0

    @property
    def row_format(self) -> str | None:
        """The row format, if the definition names it; None: the server's default at the table's creation applies."""
        match = _ROW_FORMAT.match(self.options)
        return match[2] if match else None

    def with_row_format(self, row_format: str) -> Definition:
        """The same definition, with a row format that it does not name itself."""
        definition = copy(self)
        definition.options = _ENGINE.sub(rf"\g<0> ROW_FORMAT={row_format.upper()}", self.options, count=1)
        return definition

    def without_row_format(self) -> Definition:
        """The same definition, with the server's default row format."""
        definition = copy(self)
        definition.options = _ROW_FORMAT.sub(r"\1", self.options, count=1)
        return definition

    def same_as(self, other: Definition) -> bool:
        """Whether both definitions are equal, except for their counters."""
        return (self.clauses, self.options_from_one()) == (other.clauses, other.options_from_one())

    def parts(self) -> dict[str, str]:
        """The clauses of the table, by a description for messages.

        Foreign keys and named CHECKs are missing: their names change on the way.
        """
        parts = {"the table's own settings": self.options_from_one(), "the order of the columns": "\n".join(self.columns())}
        for clause in self.clauses:
            if clause.startswith("CONSTRAINT "):
                continue
            if clause.startswith("`"):
                what = f"column {column_of(clause)}"
            elif key := _NAMED_KEY.match(clause):
                what = f"index {_plain(key[1])}"
            else:
                what = clause.split(" (")[0].lower()
            parts[what] = clause
        return parts

    @property
    def counts(self) -> bool:
        """Whether a column is AUTO_INCREMENT."""
        return any(" AUTO_INCREMENT" in _STRING.sub("", clause) for clause in self.clauses)

    @property
    def has_bits(self) -> bool:
        """Whether a column is of type BIT."""
        return any(map(_BITS.match, self.clauses))

    def columns(self) -> list[str]:
        """The names of the columns, in their order."""
        return [column_of(clause) for clause in self.clauses if clause.startswith("`")]

    def indexes(self) -> list[Index]:
        """The indexes that are not unique, in their order."""
        matches = ((_KEY.fullmatch(clause), clause) for clause in self.clauses)
        return [Index(_plain(key[2]), (key[1] or "").strip(), clause) for key, clause in matches if key]

    def late_indexes(self) -> list[Index]:
        """The indexes that can be built after the replay and keep their order: AUTO_INCREMENT may need one at once."""
        indexes = self.indexes()
        counting = (clause for clause in self.clauses if " AUTO_INCREMENT" in _STRING.sub("", clause))
        counted = next(filter(None, (re.match(_NAME, clause) for clause in counting)), None)
        if counted is None or any(key and key[2] == counted[1] for key in map(_WHOLE_KEY.match, self.clauses)):
            return indexes
        needed = [number for number, index in enumerate(indexes) if f"` (`{counted[1]}`" in index.clause]
        return indexes[max(needed, default=-1) + 1 :]

    def foreign_keys(self) -> list[ForeignKey]:
        """The foreign keys.

        :raises CloneError: a foreign key is in an unknown form
        """
        keys = []
        for clause in self.clauses:
            if not clause.startswith("CONSTRAINT ") or " FOREIGN KEY " not in clause or _CHECK.fullmatch(clause):
                continue
            match = _FOREIGN_KEY.fullmatch(clause)
            if match is None:
                raise CloneError(f"a foreign key cannot be read from SHOW CREATE TABLE, report it: {clause}")
            schema = None if match[3] is None else _plain(match[3])
            keys.append(ForeignKey(_plain(match[1]), match[2], schema, _plain(match[4]), match[5], match[6]))
        return keys

    def keyed(self) -> Keyed:
        """See :class:`Keyed`."""
        plain = [index.name for index in self.indexes() if not index.kind]
        return Keyed(self.counter, self.counts, self.foreign_keys(), plain)

    def checks(self) -> list[Check]:
        """The CHECK constraints with names; MariaDB also has some without names, within columns."""
        return [Check(_plain(match[1]), match[2]) for clause in self.clauses if (match := _CHECK.fullmatch(clause))]

    def rows(self) -> list[str]:
        """The clauses that define a row: columns, keys and periods, without late indexes and named constraints."""
        late = {index.clause for index in self.late_indexes()}
        return [clause for clause in self.clauses if clause not in late and not clause.startswith("CONSTRAINT ")]

    def options_from_one(self) -> str:
        """The options of the table, with a counter that begins at 1."""
        return _COUNTER.sub(r"\1", self.options, count=1)


def listed(column_type: str) -> tuple[str, ...]:
    """The names of an ENUM or a SET, from its type as the server writes it, which doubles quotes within names."""
    return tuple(name.replace("''", "'") for name in re.findall(r"'((?:[^']|'')*)'", column_type))


def as_written(clause: str) -> str:
    """The clause to create a column with on MySQL, so that the server shows this clause again.

    MySQL shows the table's own collation at a column; if a statement writes it there, MySQL shows the charset as well.
    """
    return _COLLATED.sub(r"\1", clause, count=1) if _COLLATED.match(clause) else clause


def _until_options(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("  "):
            return
        yield line


def _plain(name: str) -> str:
    return name.replace("``", "`")


def meanwhile(name: str) -> str | None:
    """The name of a constraint on green while blue has the real one; None: no name fits.

    Names of constraints are unique in the schema. This one has at most 64 characters and ends with a private-use
    character, from which :func:`final` computes the real name.
    """
    if len(name) < LONGEST_NAME:
        return name + chr(_MARK)
    last = ord(name[-1])
    return name[:-1] + chr(_MARK + last) if last < 0x1900 else None


def final(name: str) -> str:
    """The real name of a name by :func:`meanwhile`; any other name unchanged."""
    last = ord(name[-1]) - _MARK
    if not 0 <= last < 0x1900:
        return name
    # If the next rebuild began before the engine had corrected the names, the name has two such characters.
    return name[:-1] + chr(last) if last else final(name[:-1])


def generated(name: str, table: str, kind: str) -> str | None:
    """The number in a name of the server's own kind (``t_ibfk_1``, ``t_chk_1``), which survives a rename.

    None: the name is of another kind.
    """
    match = re.fullmatch(rf"{re.escape(table)}_{kind}_([0-9]+)", name)
    return match[1] if match else None


def renamed(name: str, table: str, to: str, kind: str) -> str:
    """The name of a constraint after its table's rename: the server renames constraints that it has named itself."""
    number = generated(name, table, kind)
    return name if number is None else f"{to}_{kind}_{number}"


def column_of(clause: str) -> str:
    """The name of the column that a clause describes."""
    match = re.match(_NAME, clause)
    return _plain(match[1]) if match else clause
