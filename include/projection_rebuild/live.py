"""Projectors inside the application: one event at a time, on blue, in the transaction that appended the event."""

from __future__ import annotations

import sqlalchemy as sa

from include.projection_rebuild.dialects import dialect_for
from include.projection_rebuild.events import Event
from include.projection_rebuild.projector import Projector
from include.projection_rebuild.reading import Reading
from include.projection_rebuild.rows import RowBuffer
from include.projection_rebuild.tables import BlueTables, GreenTables


def project_live(connection: sa.Connection, projector: type[Projector], event: Event, *, schema: str | None = None) -> None:
    """Applies one event to the live tables. Commits nothing: event and rows stand or fall together with the caller.

    What the database refuses comes as the driver's own error: the application has to tell its transactions that may simply be tried again
    (a deadlock, a serialization failure) by it, as for its other statements.

    The event goes through the projector's upcasters as in a replay.

    :param connection: a connection with the caller's transaction on it
    :param projector: the class that a rebuild replays as well
    :param event: the event as it was appended, with its position
    :param schema: the schema of the tables; None: the connection's own
    :raises PoisonEvent: the event cannot be decoded or brought up to date
    """
    if event.type not in projector.stored_types():
        return
    dialect = dialect_for(connection.engine)
    tables = BlueTables(dialect, connection, schema)
    buffer = RowBuffer(tables, classes=projector.owns)
    # What is only looked at is not locked.
    handlers = Reading(projector, GreenTables(dialect, connection, schema, str)).of(projector())
    for each in projector.upcasters.current(event):
        handlers.project(each, buffer)
    tables.write(buffer.changes())
