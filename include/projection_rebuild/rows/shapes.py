"""The values that the columns of a read model can hold, in terms that fit every database. Imports nothing."""

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
    """The values that one column can hold.

    :param length: the most characters of a text, or the most bytes; None: the engine checks no limit
    :param fills: whether the database pads bytes with zeros up to the length
    :param precision: the most digits of a decimal
    :param scale: digits behind the point of a decimal, or of a float that has a fixed number of them; None: any number
        of digits
    :param digits: stored digits of the fraction of a second, 0 to 6
    :param cuts: whether the database cuts further digits of a second instead of rounding
    :param rounds_from: the first year whose ties between two times the database rounds up; it rounds earlier ones down
    :param drops_offsets: whether a column without a time zone ignores the offset in a text
    :param names: the allowed names, for :attr:`Holds.NAMES` and :attr:`Holds.SETS`
    :param nullable: whether the column accepts NULL
    :param alike: the collation or type by which the database may treat different texts as equal; None: it compares
        bytes
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
"""The shape of a column that the engine has not inspected: the row class alone decides about its values."""
