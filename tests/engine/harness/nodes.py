"""A tree of rows, whose projector looks up rows by NULL."""

from __future__ import annotations

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rows.types import Rows, row


@row("nodes", key="id", lookups=["parent"])
class Node:
    id: str
    parent: str | None
    children: int = 0


class NodeProjector(Projector):
    """Counts at each node how many later nodes have the same parent."""

    owns = (Node,)

    @handles("Grown")
    def grown(self, event: Event, rows: Rows) -> None:
        for sibling in rows.where(Node, parent=event["parent"]):
            sibling.children += 1
        rows.add(Node(event.stream, event["parent"]))


GROWN = [("a", None), ("b", "a"), ("c", None), ("d", "a"), ("e", None)]
