"""Runs projectors inside the application: one event at a time, on blue, in the transaction that appended the event."""

from __future__ import annotations

import sqlalchemy as sa

from projection_rebuild.authoring.events import Event
from projection_rebuild.authoring.projector import Projector
from projection_rebuild.dialects import Dialect, dialect_for
from projection_rebuild.replay.foreign_reads import ForeignReads
from projection_rebuild.replay.row_tables import BlueTables, GreenTables
from projection_rebuild.rows.buffer import RowBuffer

CHECKED = "projection_rebuild_session_checked"
"""Key in a connection's ``info``: its session's settings have been checked."""


def project_inline(connection: sa.Connection, projector: type[Projector], event: Event, *, schema: str | None = None) -> None:
    """Applies one event to the live tables. Commits nothing: the caller's transaction commits the event with its rows.

    A refusal of the database is raised as the driver's own error. From it the application recognizes, as for its other
    statements, transactions that it may retry as they are (a deadlock, a serialization failure).

    The event goes through the projector's upcasters as in a replay. During the call, times mean what they mean in a
    replay (UTC if a datetime has no offset), whatever the session's time zone. The call restores the session's time
    zone when it ends, also after an error.

    :param connection: a connection on which the caller's transaction is open
    :param projector: the class that a rebuild replays as well
    :param event: the event as it was appended, with its position
    :param schema: the schema of the tables; None: the connection's default schema
    :raises PoisonEvent: the event cannot be decoded or upcast
    :raises SessionError: a setting of the session would make rows differ from a rebuild's (docs/reference/sessions.md).
        Checked once per connection of the driver, before anything is written
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
    # Rows of other projectors are only read, so they are loaded without locks.
    handlers = ForeignReads(projector, GreenTables(dialect, connection, schema, str)).of(projector())
    for current in projector.upcasters.current(event):
        handlers.project(current, buffer)
        buffer.end_event()
    tables.write(buffer.changes())
