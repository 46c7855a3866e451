"""The names of blue, green and old tables, and the new structure of green if it has one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

GREEN_SUFFIX = "_rebuild"
OLD_SUFFIX = "_old"


def derived(name: str, suffix: str, limit: int) -> str:
    """``name`` + ``suffix`` within ``limit`` bytes; a shortened name has a hash, so that it stays unique.

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
    """A new structure of a green table, instead of blue's.

    :param definition: the definition of the table under its live name, in its dialect's own format
    :param views: name and query of each view to define again for it, under live names
    """

    definition: str
    views: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class TableSet:
    """One read model of a run by all its names.

    :param schema: the schema of all three tables; None: the connection's own
    :param blue: the name of the live table
    :param green: the name of the table that the run fills
    :param old: the name of the former live table after the swap
    :param target_schema: the new structure of green; None: blue's structure
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
