"""The names that applications import to write projectors."""

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate, ByPeriod
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.authoring.upcasting import Upcasters
from projection_rebuild.rows.types import Rows, row

__all__ = ["ByAggregate", "ByPeriod", "Event", "Projector", "Rows", "Upcasters", "handles", "row"]
