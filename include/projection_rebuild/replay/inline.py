"""Projectors inside the application: one event at a time, on blue, in the transaction that appended the event."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.replay.foreign_reads import ForeignReads
from projection_rebuild.replay.row_tables import BlueTables, GreenTables
from projection_rebuild.rows.buffer import RowBuffer

CHECKED = "projection_rebuild_session_checked"
"""In the info of a connection: its session has been looked at."""


def project_inline(connection: sa.Connection, projector: type[Projector], event: Event, *, schema: str | None = None) -> None:
    """Applies one event to the live tables. Commits nothing: event and rows stand or fall together with the caller.

    What the database refuses comes as the driver's own error: the application has to tell its transactions that may simply be tried again
    (a deadlock, a serialization failure) by it, as for its other statements.

    The event goes through the projector's upcasters as in a replay. Within the call times mean what they mean in a replay (UTC where a
    datetime has no offset), whatever the session's time zone; when it ends, and however it ends, the session has its own again.

    :param connection: a connection with the caller's transaction on it
    :param projector: the class that a rebuild replays as well
    :param event: the event as it was appended, with its position
    :param schema: the schema of the tables; None: the connection's own
    :raises PoisonEvent: the event cannot be decoded or brought up to date
    :raises SessionError: the session has a setting by which rows would not be those of a rebuild (docs/reference/sessions.md); looked at once for
        each connection of the driver's; nothing has been written
    """
    if event.type not in projector.stored_types():
        return
    dialect = dialect_for(connection.engine)
    if CHECKED not in connection.info:
        dialect.check_live(connection)
        connection.info[CHECKED] = True
    with dialect.times_in_utc(connection):
        _project(dialect, connection, projector, event, schema)


project_live = project_inline
"""The first name of :func:`project_inline`, which applications may go on using."""


def _project(dialect: Dialect, connection: sa.Connection, projector: type[Projector], event: Event, schema: str | None) -> None:
    tables = BlueTables(dialect, connection, schema)
    buffer = RowBuffer(tables, classes=projector.owns)
    # What is only looked at is not locked.
    handlers = ForeignReads(projector, GreenTables(dialect, connection, schema, str)).of(projector())
    for each in projector.upcasters.current(event):
        handlers.project(each, buffer)
        buffer.end_event()
    tables.write(buffer.changes())
