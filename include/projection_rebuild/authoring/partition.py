"""How a projector's events and rows divide into independent shards, so that workers can replay them side by side.

Pure data: the database that reads the events computes the shard of each event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from projection_rebuild.rows.types import RowType


@dataclass(frozen=True)
class Partition:
    """How a projector's events and rows divide into shards.

    :param field: the field of the payload whose value decides the shard of an event; None: its stream decides
    :param attributes: by row class, the attribute that holds the same value
    """

    field: str | None
    attributes: Mapping[type, str]

    def attribute(self, kind: RowType) -> str:
        """The attribute whose value decides the shard of a row."""
        return self.attributes[kind.row_class]


@dataclass(frozen=True)
class Shard:
    """One shard of the events.

    :param number: the shard's number, from 0
    :param count: the number of shards
    :param field: as in :class:`Partition`
    """

    number: int
    count: int
    field: str | None

    def describe(self) -> str:
        """Number and count for logs, such as ``3/8``; the first shard is 1."""
        return f"{self.number + 1}/{self.count}"
