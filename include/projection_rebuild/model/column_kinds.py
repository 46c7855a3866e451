"""What the columns of an event store are, in words that hold for every database. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ColumnKind(StrEnum):
    """What a column holds."""

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
    :param compares_bytes: whether two texts are equal for the database only if their bytes are; false for a collation that ignores
        case, accents or blanks at the end
    :param nullable: whether it takes NULL
    :param takes_any_text: whether every text can be compared with it; false for a character set that lacks letters
    """

    name: str
    kind: ColumnKind
    compares_bytes: bool = True
    nullable: bool = True
    takes_any_text: bool = True
