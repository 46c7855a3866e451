"""MySQL and MariaDB: explains failed connections, and checks that a new one is encrypted and has a session to itself.

The driver may be built with MariaDB's Connector/C. That library continues in plain text if a server offers no
encryption, unless it has to verify the certificate. So the engine queries the cipher of each new session. ProxySQL and
MaxScale send statements of one connection to several sessions. The connection's number from the login is then not the
number of the session that answers.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import MySQLdb
import sqlalchemy as sa

from projection_rebuild.dialects.base import Refusal, own_port

ASKED = "projection_rebuild_tls"
"""A key of a connection's ``info``: the encryption that its configuration requires, a :class:`Tls`."""

UNDERSTOOD = {"ca", "cert", "key", "capath", "cipher"}
"""The keys of ``ssl`` that the driver uses; it ignores all others."""

ENCRYPTING = {"REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"}
VERIFYING = {"VERIFY_CA", "VERIFY_IDENTITY"}

AT_ONCE = 3
"""Connections that the engine opens to compare their numbers: two counters may agree for one, but not for all."""

_DIRECT = "Connect to the server directly, past the proxy: a rebuild locks tables and sets its session"

_NO_ROOM = Refusal(
    "the server has no connection to spare, for all or for this account",
    "Try again later, or raise max_connections or the account's MAX_USER_CONNECTIONS: a run needs up to ten connections",
    retryable=True,
)
_LOGIN = Refusal("the server does not accept login and password", "Correct them in the connection")
_LOCKED = Refusal(
    "the account is locked, or its password has expired", "ALTER USER ... ACCOUNT UNLOCK, or give it another password"
)
_DATABASE = Refusal(
    "there is no such database, or the account may not use it",
    "Correct the database (the field schema) in the connection, or GRANT",
)
_ELSEWHERE = Refusal(
    "the server cannot be reached, or does not answer",
    "Check that it runs, and that host and port are right",
    retryable=True,
)
_MACHINE = Refusal("the server lets no one in from this machine", "Allow its address for the account, or FLUSH HOSTS")
_ENCRYPTION = Refusal(
    "the connection cannot be encrypted as it is configured, or the server asks for encryption",
    "Correct ssl and ssl_mode in the extras, or turn encryption on in the server",
)
_PLUGIN = Refusal(
    "the driver does not know how the account is to log in", "Give the account an authentication plugin of the server's"
)
_DRIVER = Refusal("the driver does not take one of the extras", "Correct the extras in the connection")

TLS_FAILED = 2026

CLIENT_ERRORS = 2000
"""Errors 2000 to 2999 are the driver's own: it has not reached the server, or has lost it."""

BROKEN_TLS = r"reset by peer|Broken pipe|timed out|unexpected eof|reason\(5\)"
"""The text of a TLS error if the connection broke within the handshake, for each library that drivers are built with."""

_AWAY = {1053, 1152, 1158, 1159, 1160, 1161, 1184}
"""Errors of a server that is shutting down, or of a broken connection."""

_MEANINGS = {
    1040: _NO_ROOM, 1203: _NO_ROOM, 1226: _NO_ROOM, 1045: _LOGIN, 1698: _LOGIN, 3118: _LOCKED, 4151: _LOCKED, 1820: _LOCKED, 1862: _LOCKED,
    1044: _DATABASE, 1049: _DATABASE, 1129: _MACHINE, 1130: _MACHINE, TLS_FAILED: _ENCRYPTION, 3159: _ENCRYPTION, 1251: _PLUGIN, 2059: _PLUGIN,
    2061: _PLUGIN,
}  # fmt: skip


class Tls:
    """The encryption that a connection's configuration requires.

    :param arguments: the driver's arguments
    :ivar required: whether the connection must be encrypted
    :ivar ignored: keys of ``ssl`` that the driver would ignore, although nothing else verifies the server
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        ssl, mode = arguments.get("ssl"), str(arguments.get("ssl_mode") or "").upper()
        self.required = mode in ENCRYPTING or (bool(ssl) and mode != "DISABLED")
        ignored = {key for key, value in ssl.items() if value and key not in UNDERSTOOD} if isinstance(ssl, Mapping) else set()
        self.ignored = sorted(ignored) if mode not in VERIFYING else []


def note(dialect: sa.Dialect, record: Any, args: list[Any], arguments: dict[str, Any]) -> None:
    """Stores a new connection's :class:`Tls` in its ``info``; a listener of SQLAlchemy's event ``do_connect``."""
    if record is not None:
        record.info[ASKED] = Tls(arguments)


def why_not_connected(error: BaseException) -> Refusal:
    """Explains a failed connection by the error's number; an unknown driver error means an unreachable server."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if not isinstance(cause, MySQLdb.OperationalError):
        return _DRIVER
    number = int(cause.args[0]) if cause.args else 0
    if number == TLS_FAILED and re.search(BROKEN_TLS, str(cause.args[1:])):
        return _ELSEWHERE
    if number in _AWAY or number == 0 or number // 1000 == CLIENT_ERRORS // 1000:
        return _MEANINGS.get(number, _ELSEWHERE)
    unknown = Refusal(
        f"the server refuses the login with its error {number}", "Look it up, and correct the connection", retryable=True
    )
    return _MEANINGS.get(number, unknown)


class OwnSessions:
    """Checks the new connections of one engine."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._proving = threading.Lock()
        self._proven = False

    def note_tls(self) -> None:
        """Makes each later connection of the engine store its :class:`Tls`, which the check reads."""
        if not sa.event.contains(self._engine.dialect, "do_connect", note):
            sa.event.listen(self._engine.dialect, "do_connect", note)

    def why_not(self, connection: sa.Connection) -> Refusal | None:
        """Why a connection differs from its configuration, or shares its session; None: it may be used."""
        try:
            return _why_not_encrypted(connection) or self._why_not_own(connection.connection.driver_connection)
        except MySQLdb.Error as error:
            return why_not_connected(error)

    def _why_not_own(self, driver: Any) -> Refusal | None:
        if not _has_its_number(driver):
            return Refusal("a proxy stands between, which may send each statement to another session", _DIRECT)
        with self._proving, ExitStack() as held:
            if self._proven or _seen_port(driver) == own_port(driver.fileno()):
                self._proven = True
                return None
            # Either the network translates addresses, or two counters agree by accident.
            for _ in range(AT_ONCE):
                fairy = self._engine.raw_connection()
                held.callback(fairy.invalidate)
                if not _has_its_number(fairy.driver_connection):
                    return Refusal("a proxy stands between, which may send each statement to another session", _DIRECT)
            self._proven = True
        return None


def _why_not_encrypted(connection: sa.Connection) -> Refusal | None:
    tls = connection.info.get(ASKED)
    if tls is None or not tls.required:
        return None
    if tls.ignored:
        return Refusal(
            f"the driver would ignore {', '.join(f'ssl.{key}' for key in tls.ignored)}, and encrypt without it",
            "Set ssl_mode=VERIFY_IDENTITY, which verifies certificate and host name",
        )
    cipher = _first_row(connection.connection.driver_connection, "SHOW SESSION STATUS LIKE 'Ssl_cipher'")[1]
    if cipher:
        return None
    return Refusal(
        "the connection requires encryption, but the server communicates in plain text",
        "Turn TLS on in the server, or remove ssl and ssl_mode from the connection if plain text is acceptable",
    )


def _has_its_number(driver: Any) -> bool:
    # Not the bare function: ProxySQL answers that by itself. The login returns 32 bits of the number.
    (number,) = _first_row(driver, "SELECT CONNECTION_ID() + 0")
    return bool(int(number) & 0xFFFFFFFF == driver.thread_id() & 0xFFFFFFFF)


def _seen_port(driver: Any) -> str | None:
    """The client's port, as the server sees it; None: it sees none."""
    host = ""
    # The second list fails on MySQL while any session executes a text with a character of four bytes. The first one may
    # be missing or off.
    for table in ("performance_schema.processlist", "information_schema.PROCESSLIST"):
        with suppress(MySQLdb.Error):
            row = _first_row(driver, f"SELECT HOST FROM {table} WHERE ID = CONNECTION_ID()")
            host = row[0] if row else ""
        if host:
            break
    _, colon, port = str(host).rpartition(":")
    return port if colon else None


def _first_row(driver: Any, sql: str) -> Any:
    """The first row of a query; None if it returns no row."""
    cursor = driver.cursor()
    try:
        cursor.execute(sql)
        return cursor.fetchone()
    finally:
        cursor.close()
