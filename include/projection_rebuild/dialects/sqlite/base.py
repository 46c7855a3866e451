"""Connections to SQLite, and the base class of all its subjects."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.base import LockWaits, Refusal
from projection_rebuild.dialects.sqlite import session as session_settings
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
    """Whether the file's encoding is UTF-8. The first connection sets it; a file's encoding never changes."""

    def why_not_connected(self, error: BaseException) -> Refusal:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        return _MEANINGS.get(getattr(cause, "sqlite_errorname", ""), _UNUSABLE)

    def why_not_ours(self, connection: sa.Connection) -> Refusal | None:
        # This reads the header of the file. Only then does SQLite notice that it is missing, or no database.
        try:
            self._execute(connection, "PRAGMA schema_version").scalar_one()
        except sa.exc.DBAPIError as error:
            if not self.is_lock_timeout(error):
                raise
        return None

    def set_up(self, connection: sa.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        # The application may have configured its engine for other types than text and tuples.
        driver.text_factory, driver.row_factory = str, None
        # Before a transaction begins: within one, some of these PRAGMAs have no effect.
        for statement in session_settings.STATEMENTS:
            self._execute(connection, statement).close()
        # SQLite has no hash of its own.
        driver.create_function("projection_rebuild_crc", 1, zlib.crc32, deterministic=True)
        # SQLite's own JSON functions take the first of two fields of the same name; handlers get the last.
        driver.create_function("projection_rebuild_field", 2, _field, deterministic=True)
        self._writes_utf8 = self._execute(connection, "PRAGMA encoding").scalar() == "UTF-8"

    def session(self, connection: sa.Connection) -> list[str]:
        return list(session_settings.STATEMENTS)

    def session_id(self, connection: sa.Connection) -> int | None:
        return None

    def cancel(self, session_id: int) -> None:
        """Does nothing: statements run within this process, and :meth:`session_id` returns None."""

    def usual_lock_wait(self, connection: sa.Connection) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {session_settings.BUSY_TIMEOUT_MS}")

    def limit_lock_wait(self, connection: sa.Connection, timeout: timedelta) -> None:
        self._execute(connection, f"PRAGMA busy_timeout = {max(1, round(timeout.total_seconds() * 1000))}")


def _field(payload: str | bytes | None, name: str) -> str | None:
    """A field of a payload as handlers get it, as text; None if the field is missing or the payload is no JSON object."""
    try:
        fields = from_json(payload)
        value = fields.get(name) if isinstance(fields, dict) else None
        text = value if isinstance(value, str) else None if value is None else json_text(value)
        return None if text is None else text.encode().decode()
    except (ValueError, TypeError, RecursionError):
        # The payload is no JSON, or its text is no valid Unicode, so it has no field to read.
        return None
