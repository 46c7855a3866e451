"""The types of the columns of an event store, in terms that fit every database. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ColumnKind(StrEnum):
    """The kind of values that a column holds."""

    WHOLE = "whole numbers"
    NUMBER = "numbers with a fraction"
    TEXT = "text"
    PADDED = "text padded with blanks"
    ENUM = "names of an enumeration"
    UUID = "UUIDs"
    BYTES = "bytes"
    JSON = "JSON"
    TIME = "times"
    OTHER = "something else"


@dataclass(frozen=True)
class ColumnType:
    """A column's type.

    :param name: as the server writes it, such as ``numeric(20,1)``
    :param compares_bytes: whether the database treats two texts as equal only if their bytes are equal; false for a
        collation that ignores case, accents or blanks at the end
    :param nullable: whether the column accepts NULL
    :param takes_any_text: whether the database can compare every text with the column; false for a character set that
        lacks characters
    """

    name: str
    kind: ColumnKind
    compares_bytes: bool = True
    nullable: bool = True
    takes_any_text: bool = True
