"""The names of blue, green and old tables, and another structure where green has one; imports nothing of the engine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

GREEN_SUFFIX = "_rebuild"
OLD_SUFFIX = "_old"


def derived(name: str, suffix: str, limit: int) -> str:
    """``name`` + ``suffix`` within ``limit`` bytes, unambiguous where it had to be shortened.

    Databases cut or refuse names that are too long, and a silent cut of ``_rebuild`` gives the live table's own name.
    """
    plain = name + suffix
    if len(plain.encode()) <= limit:
        return plain
    digest = "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
    room = limit - len(suffix) - len(digest)
    return name.encode()[:room].decode(errors="ignore") + digest + suffix


@dataclass(frozen=True)
class TargetSchema:
    """The structure that a green table has instead of its blue one's.

    :param definition: of the table under its live name, as its dialect keeps it
    :param views: name and query of the views that are defined anew for it, under live names
    """

    definition: str
    views: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TableSet:
    """One read model of a run by all of its names.

    :param schema: the schema of all three; None: the connection's own
    :param blue: the live name
    :param green: the table that is being rebuilt
    :param old: the live table after the switch
    :param target_schema: the structure that green has; None: that of blue
    """

    schema: str | None
    blue: str
    green: str
    old: str
    target_schema: TargetSchema | None = None

    @classmethod
    def of(cls, table: str, *, schema: str | None, limit: int, target_schema: TargetSchema | None = None) -> TableSet:
        """The names for a live table in a database whose identifiers have at most ``limit`` bytes."""
        return cls(schema, table, derived(table, GREEN_SUFFIX, limit), derived(table, OLD_SUFFIX, limit), target_schema)
