"""Sentences that more than one package says."""

from __future__ import annotations

from projection_rebuild.model.names import TableSet
from projection_rebuild.model.positions import Place, said


def foreign_green(table: TableSet) -> str:
    """The refusal of a table in green's place that no run has made."""
    return (
        f"there is a table {table.green} that no rebuild has made; rename or drop it yourself if nobody needs it, "
        "since a rebuild replaces it"
    )


def foreign_old(old: str) -> str:
    """The refusal of a table in old's place that no run has retired."""
    return f"there is a table {old} that no rebuild has retired; rename or drop it yourself, the switch needs its name"


def miscount(projector: str, handled: int, aside: int, there: int, position: Place) -> str:
    """What is said of a projector that has not handled as many events as there are."""
    set_aside = f" and set aside {aside:,}" if aside else ""
    return (
        f"{projector} has handled {handled:,} events{set_aside}, the store holds {there:,} of its types up to {said(position)}; "
        "run clone_tables and what follows it again"
    )
