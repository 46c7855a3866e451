"""What SHOW CREATE TABLE says on MySQL and MariaDB, taken apart, and the names that a rebuild gives to constraints meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

from projection_rebuild.errors import CloneError

LONGEST_NAME = 64
"""Characters in a name."""

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
"""Begins Unicode's private area, which no alphabet uses."""


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
        """All but the name, with another parent: what makes two foreign keys the same."""
        return (self.columns, self.parent_schema or "", parent, self.parent_columns, self.actions)

    def pairs(self) -> list[tuple[str, str]]:
        """Own column and parent's column."""
        own, parents = (re.findall(_NAME, each) for each in (self.columns, self.parent_columns))
        return [(_plain(one), _plain(other)) for one, other in zip(own, parents, strict=True)]


@dataclass(frozen=True)
class Check:
    """A named CHECK; ``rule`` is the condition and whether it is enforced."""

    name: str
    rule: str


@dataclass(frozen=True)
class Keyed:
    """What has to be known of a table to put its foreign keys right.

    :param counter: the next AUTO_INCREMENT; 0 if there is none
    :param counts: whether a column is AUTO_INCREMENT
    :param plain_indexes: the names of the indexes that are neither unique nor of another kind
    """

    counter: int
    counts: bool
    foreign_keys: list[ForeignKey]
    plain_indexes: list[str]


class Definition:
    """A table as SHOW CREATE TABLE tells it, one clause a line.

    :param statement: its second column
    """

    def __init__(self, statement: str) -> None:
        _, *lines = statement.split("\n")
        self.clauses = [line.strip().removesuffix(",") for line in _until_options(lines)]
        self.options = "\n".join(lines[len(self.clauses) :])

    @property
    def counter(self) -> int:
        """The next AUTO_INCREMENT; 0 if there is none. MySQL's information_schema would give it a day late."""
        found = _COUNTER.match(self.options)
        return int(found[2]) if found else 0

    @property
    def row_format(self) -> str | None:
        """How rows are laid out, where the definition says so; otherwise by the server's default of the day on which it was made."""
        found = _ROW_FORMAT.match(self.options)
        return found[2] if found else None

    def with_row_format(self, row_format: str) -> Definition:
        """The same table, with a row format that it does not name itself."""
        made = copy(self)
        made.options = _ENGINE.sub(rf"\g<0> ROW_FORMAT={row_format.upper()}", self.options, count=1)
        return made

    def without_row_format(self) -> Definition:
        """The same table, with the row format of the server's default."""
        made = copy(self)
        made.options = _ROW_FORMAT.sub(r"\1", self.options, count=1)
        return made

    def same_as(self, other: Definition) -> bool:
        """Whether both say the same, however far each has counted."""
        return (self.clauses, self.options_from_one()) == (other.clauses, other.options_from_one())

    def parts(self) -> dict[str, str]:
        """What the table consists of, by what people call it: all but foreign keys and named CHECKs, whose names change on the way."""
        found = {"the table's own settings": self.options_from_one(), "the order of the columns": "\n".join(self.columns())}
        for clause in self.clauses:
            if clause.startswith("CONSTRAINT "):
                continue
            if clause.startswith("`"):
                what = f"column {column_of(clause)}"
            elif key := _NAMED_KEY.match(clause):
                what = f"index {_plain(key[1])}"
            else:
                what = clause.split(" (")[0].lower()
            found[what] = clause
        return found

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
        found = ((_KEY.fullmatch(clause), clause) for clause in self.clauses)
        return [Index(_plain(key[2]), (key[1] or "").strip(), clause) for key, clause in found if key]

    def late_indexes(self) -> list[Index]:
        """Those that can be built after the replay, and be in the same order then: AUTO_INCREMENT may need one from the start."""
        indexes = self.indexes()
        counting = (clause for clause in self.clauses if " AUTO_INCREMENT" in _STRING.sub("", clause))
        counted = next(filter(None, (re.match(_NAME, clause) for clause in counting)), None)
        if counted is None or any(key and key[2] == counted[1] for key in map(_WHOLE_KEY.match, self.clauses)):
            return indexes
        needed = [at for at, index in enumerate(indexes) if f"` (`{counted[1]}`" in index.clause]
        return indexes[max(needed, default=-1) + 1 :]

    def foreign_keys(self) -> list[ForeignKey]:
        """The foreign keys.

        :raises CloneError: one that cannot be read
        """
        keys = []
        for clause in self.clauses:
            if not clause.startswith("CONSTRAINT ") or " FOREIGN KEY " not in clause or _CHECK.fullmatch(clause):
                continue
            found = _FOREIGN_KEY.fullmatch(clause)
            if found is None:
                raise CloneError(f"a foreign key cannot be read from SHOW CREATE TABLE, report it: {clause}")
            schema = None if found[3] is None else _plain(found[3])
            keys.append(ForeignKey(_plain(found[1]), found[2], schema, _plain(found[4]), found[5], found[6]))
        return keys

    def keyed(self) -> Keyed:
        """See :class:`Keyed`."""
        plain = [index.name for index in self.indexes() if not index.kind]
        return Keyed(self.counter, self.counts, self.foreign_keys(), plain)

    def checks(self) -> list[Check]:
        """The CHECK constraints with names; MariaDB has others within its columns."""
        return [Check(_plain(found[1]), found[2]) for clause in self.clauses if (found := _CHECK.fullmatch(clause))]

    def rows(self) -> list[str]:
        """The clauses that say what a row is: columns, keys and periods, without late indexes and named constraints."""
        late = {index.clause for index in self.late_indexes()}
        return [clause for clause in self.clauses if clause not in late and not clause.startswith("CONSTRAINT ")]

    def options_from_one(self) -> str:
        """The options of a table that has not counted anything yet."""
        return _COUNTER.sub(r"\1", self.options, count=1)


def listed(column_type: str) -> tuple[str, ...]:
    """The names of an ENUM or a SET, of its type as the server writes it: a quote within a name is doubled."""
    return tuple(each.replace("''", "'") for each in re.findall(r"'((?:[^']|'')*)'", column_type))


def as_written(clause: str) -> str:
    """How a column has to be written on MySQL so that it is shown like this again.

    MySQL shows the table's own collation at a column, and if it is written there, the charset as well.
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
    """What a constraint is called on green while blue has its name, which is the whole schema's; None: it cannot be told.

    Made so that :func:`final` finds the way back from it alone, in 64 characters: a letter of the private area at the end.
    """
    if len(name) < LONGEST_NAME:
        return name + chr(_MARK)
    last = ord(name[-1])
    return name[:-1] + chr(_MARK + last) if last < 0x1900 else None


def final(name: str) -> str:
    """The name that :func:`meanwhile` was made from; any other name as it is."""
    last = ord(name[-1]) - _MARK
    if not 0 <= last < 0x1900:
        return name
    # A table whose names were not put right before its next rebuild has been here twice.
    return name[:-1] + chr(last) if last else final(name[:-1])


def generated(name: str, table: str, kind: str) -> str | None:
    """The number in a name that the server itself has given (``t_ibfk_1``, ``t_chk_1``), and that it keeps in a rename."""
    found = re.fullmatch(rf"{re.escape(table)}_{kind}_([0-9]+)", name)
    return found[1] if found else None


def renamed(name: str, table: str, to: str, kind: str) -> str:
    """What a constraint is called when its table has been renamed: the server takes the names along that it has given itself."""
    number = generated(name, table, kind)
    return name if number is None else f"{to}_{kind}_{number}"


def column_of(clause: str) -> str:
    """The name of the column that a clause describes."""
    found = re.match(_NAME, clause)
    return _plain(found[1]) if found else clause
