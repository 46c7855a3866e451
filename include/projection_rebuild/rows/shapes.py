"""What the columns of a read model can hold, in words that hold for every database. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Holds(StrEnum):
    """The kind of values that a column holds."""

    TEXT = "text"
    PADDED = "text whose blanks at the end do not count"
    NAMES = "one of its names"
    SETS = "some of its names"
    WHOLE = "whole numbers"
    DECIMAL = "decimals"
    DOUBLE = "double precision floats"
    SINGLE = "single precision floats"
    LOOSE = "numbers, and any text that is none"
    LOOSE_REAL = "floats, and any text that is none"
    DATE = "dates"
    MOMENT = "times without a zone"
    ZONED = "times with a zone"
    KEPT_TEXT = "whatever is given, numbers as text"
    UUID = "UUIDs"
    BYTES = "bytes"
    JSON = "JSON, as it was written"
    SORTED_JSON = "JSON, its keys in an order of their own"
    NARROW_JSON = "JSON, its keys in an order of their own, its numbers of 64 bits"
    OTHER = "something else"


@dataclass(frozen=True)
class Shape:
    """What one column can hold.

    :param length: characters of a text, or bytes, at most; None: no bound that is looked at
    :param fills: whether bytes are filled up with zeros to the length
    :param precision: digits of a decimal at most
    :param scale: digits behind the point of a decimal, or of a float that has a fixed number of them; None: as many as are given
    :param digits: digits of a second
    :param cuts: whether further digits of a second are cut, and not rounded
    :param rounds_from: the year from which a tie between two times is rounded away
    :param drops_offsets: whether the offset that a text tells is left out, where the column has no zone
    :param names: what may be held, of :attr:`Holds.NAMES` and :attr:`Holds.SETS`
    :param nullable: whether it takes NULL
    :param alike: the collation or type by which texts that differ may be equal to the database; None: their bytes decide
    """

    holds: Holds
    length: int | None = None
    fills: bool = False
    precision: int | None = None
    scale: int | None = None
    digits: int = 6
    cuts: bool = False
    rounds_from: int | None = None
    drops_offsets: bool = False
    names: tuple[str, ...] = ()
    nullable: bool = True
    alike: str | None = None


UNKNOWN = Shape(Holds.OTHER)
"""Of a column that nobody has looked at: values are what their row class says."""
