"""Sessions on SQLite, and what every subject needs there."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import LockWaits, Refusal
from projection_rebuild.dialects.sqlite import session as ours
from projection_rebuild.dialects.sqlite.cutover import MAX_IDENTIFIER
from projection_rebuild.rows.values import from_json, json_text

_UNUSABLE = Refusal(
    "the file cannot be opened, or a parameter of the connection is wrong", "Correct path and extras in the connection"
)

_MEANINGS = {
    "SQLITE_CANTOPEN": Refusal("the file cannot be opened", "Correct the path, or let this process read the file and its folder"),
    "SQLITE_NOTADB": Refusal("the file is no SQLite database, or it is encrypted", "Correct the path in the connection"),
    "SQLITE_CORRUPT": Refusal("the file is damaged", "PRAGMA integrity_check, and restore it"),
    "SQLITE_PERM": Refusal("the file may not be opened", "Let this process read and write the file and its folder"),
}


class SqliteBase(LockWaits):
    """See :class:`Sessions` and :class:`LockWaits`."""

    database = "sqlite"
    max_identifier = MAX_IDENTIFIER
    ddl_commits = False
    begin = "BEGIN IMMEDIATE"

    _writes_utf8 = True
    """Known from the first connection on: the encoding of a file never changes."""

    def why_not_connected(self, error: BaseException) -> Refusal:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        return _MEANINGS.get(getattr(cause, "sqlite_errorname", ""), _UNUSABLE)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        # Reads the head of the file: that it is missing, or no database, shows nowhere before that.
        try:
            self._execute(connection, "PRAGMA schema_version").scalar_one()
        except sa.exc.DBAPIError as error:
            if not self.is_lock_timeout(error):
                raise
        return None

    def set_up(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        # Whoever made the engine may have told its connections to give something else than text and tuples.
        driver.text_factory, driver.row_factory = str, None
        # Before a transaction begins: in one, some of them do nothing.
        for statement in ours.STATEMENTS:
            self._execute(connection, statement).close()
        # SQLite has no hash of its own.
        driver.create_function("projection_rebuild_crc", 1, zlib.crc32, deterministic=True)
        # Its own takes the first of two fields of one name, and handlers meet the last.
        driver.create_function("projection_rebuild_field", 2, _field, deterministic=True)
        self._writes_utf8 = self._execute(connection, "PRAGMA encoding").scalar() == "UTF-8"

    def session(self, connection: sa.Connection) -> list[str]:
        return list(ours.STATEMENTS)

    def session_id(self, connection: sa.Connection) -> int | None:
        return None

    def cancel(self, session_id: int) -> None:
        """Nothing to do: statements run within this process, and :meth:`session_id` gives nothing to cancel."""

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {ours.BUSY_TIMEOUT_MS}")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {max(1, round(timeout.total_seconds() * 1000))}")


def _field(payload: str | bytes | None, name: str) -> str | None:
    """A field of a payload as handlers get it, as text; None: there is none, or the payload is no object of JSON."""
    try:
        found = from_json(payload)
        value = found.get(name) if isinstance(found, dict) else None
        told = value if isinstance(value, str) else None if value is None else json_text(value)
        return None if told is None else told.encode().decode()
    except (ValueError, TypeError, RecursionError):
        # Neither what is no JSON nor what is no Unicode says where it belongs.
        return None
