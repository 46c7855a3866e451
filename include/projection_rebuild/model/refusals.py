"""Messages that more than one package uses."""

from __future__ import annotations

from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place, said


def foreign_green(table: TableSet) -> str:
    """The message about a table with the name of green that no run has created."""
    return (
        f"there is a table {table.green} that no rebuild has made; rename or drop it yourself if nobody needs it, "
        "since a rebuild replaces it"
    )


def foreign_old(old: str) -> str:
    """The message about a table with the name of the old table that no run has retired."""
    return f"there is a table {old} that no rebuild has retired; rename or drop it yourself, the switch needs its name"


def miscount(projector: str, handled: int, aside: int, stored: int, position: Place) -> str:
    """The message about a projector that has handled another number of events than the store holds.

    :param aside: how many events its replay has set aside
    :param stored: how many events of its types the store holds up to ``position``
    """
    set_aside = f" and set aside {aside:,}" if aside else ""
    return (
        f"{projector} has handled {handled:,} events{set_aside}, the store holds {stored:,} of its types up to {said(position)}; "
        "run clone_tables and what follows it again"
    )
