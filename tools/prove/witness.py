"""A read model that counts how often each event was projected, which shows lost and doubled events."""

from __future__ import annotations

import sqlalchemy as sa

from include.universal.projectors import ALL
from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.parts import ByAggregate
from projection_rebuild.authoring.projector import Projector, handles
from projection_rebuild.rows.types import Rows, row

metadata = sa.MetaData()
applied_events = sa.Table(
    "applied_events",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("times", sa.Integer, nullable=False),
    mysql_engine="InnoDB",
)


@row("applied_events", key="position")
class AppliedEvent:
    position: int
    times: int = 0


class AppliedEventProjector(Projector):
    """One row per event. Each rebuild swaps its table together with the application's tables."""

    owns = (AppliedEvent,)
    part = ByAggregate({AppliedEvent: "position"}, of=lambda event: event.position)

    @handles(*sorted({event_type for projector in ALL for event_type in projector.event_types()}))
    def applied(self, event: Event, rows: Rows) -> None:
        rows.get_or_add(AppliedEvent, event.position).times += 1


PROJECTORS: tuple[type[Projector], ...] = (*ALL, AppliedEventProjector)
