"""What divides a projector's events and rows into parts that never meet, so that each part can be replayed by itself.

Pure: which part an event is in is worked out by the database that reads it; here stands what belongs to what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from projection_rebuild.rows.types import RowType


@dataclass(frozen=True)
class Partition:
    """How a projector's events and rows are divided.

    :param field: the field of the payload whose value says where an event belongs; None: its stream does
    :param attributes: by row class, the attribute that holds the same value
    """

    field: str | None
    attributes: Mapping[type, str]

    def attribute(self, kind: RowType) -> str:
        """The attribute of a row that says where it belongs."""
        return self.attributes[kind.row_class]


@dataclass(frozen=True)
class Shard:
    """One part of the events.

    :param number: from 0
    :param count: how many there are
    :param field: as in :class:`Partition`
    """

    number: int
    count: int
    field: str | None

    def describe(self) -> str:
        """``3/8``, counted from 1 for people."""
        return f"{self.number + 1}/{self.count}"
