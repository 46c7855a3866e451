"""Connecting to PostgreSQL: explains why a connection failed, and proves that a new one has a server session of its own.

A pooler in transaction mode gives each transaction another session of the server. The engine's settings would then reach the
application, and its session locks would pass to another client. So the engine proves the session before it sets anything.
"""

from __future__ import annotations

import re
import secrets
import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import pq
from psycopg.pq.abc import PGconn

from projection_rebuild.dialects.base import Refusal, own_port

PATIENCE = 10.0
"""How many seconds a query of the proof may wait until the pooler has a free connection to the server."""

SHORT = 1.0
"""The same, while the engine occupies a session that the application may be waiting for."""

ROUNDS = 5
"""How many rounds the proof queries its two connections in turn. The first round shows transaction mode, unless the pool is busy."""

SPARE = 4
"""How many new connections look for the session that the connection before has just returned to the pooler."""

DIRECT = "Connect to the server directly, past the pooler, or through a pool in session mode (PgBouncer: pool_mode=session)"

# Whole phrases of libpq, since their single words also occur in other messages, for example about a lost connection.
_BROKEN = (
    r"SSL SYSCALL error|SSL error: unexpected eof|SSL connection has been closed unexpectedly|server closed the connection unexpectedly"
    r"|could not send (SSL|GSSAPI) negotiation packet|server sent an error response during SSL exchange"
)
_ENCRYPTION = (
    r"SSL error(:| code)|server does not support SSL|could not establish SSL|could not create SSL|SSL support is not compiled in"
    r"|could not (read|open|load|set|get) .*(certificate|private key|SSL)|could not get server's host name|root certificate file"
    r"|certificate present|certificate does not match|server certificate for|valid client certificate|private key file|host name must be specified"
    r"|response to SSL negotiation|data after (SSL|GSSAPI)|GSSAPI (encryption|negotiation|security context)"
    r"|channel binding (is )?required|weak sslmode"
)
_NAMES = r'"[^"]*"' + r"|(?<=host )'[^']*'|(?<=host: )'[^']*'"
"""What libpq and psycopg quote: names, addresses and paths, which may contain any word."""

_CONFIGURED = (
    r"unrecognized configuration parameter|invalid value for parameter|invalid command-line|unsupported startup parameter"
)

_ELSEWHERE = Refusal(
    "the server cannot be reached, or does not answer",
    "Look whether it runs, and whether host and port are right",
    retryable=True,
)

# libpq gives the reason of a failed connection only as text, which may be the server's message.
_MEANINGS: tuple[tuple[str, Refusal], ...] = (
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        Refusal(
            "the server's pg_hba.conf does not admit this account from this machine, or not with this encryption",
            "Add a line for it there, or set the sslmode that the server requires",
        ),
    ),
    (
        r"too many connections|too many clients|remaining connection slots|no more connections allowed|max_client_conn",
        Refusal(
            "the server, the database or the role has no connection to spare",
            "Try again later, or raise max_connections or the CONNECTION LIMIT: a run needs up to ten connections",
            retryable=True,
        ),
    ),
    (
        r"password authentication failed|no password supplied|authentication failed",
        Refusal("the server does not accept login and password", "Correct them in the connection"),
    ),
    (r"role .* does not exist|no such user", Refusal("there is no such role", "Correct the login in the connection")),
    (
        r"is not permitted to log in|permission denied for database",
        Refusal("the role may not connect", "GRANT CONNECT ON DATABASE, or ALTER ROLE ... LOGIN"),
    ),
    (
        r"database .* does not exist|no such database",
        Refusal("there is no such database", "Correct the database (the field schema) in the connection"),
    ),
    (
        r"not currently accepting connections",
        Refusal("the database accepts no connections", "ALTER DATABASE ... ALLOW_CONNECTIONS true"),
    ),
    (
        r"statement pooling mode",
        Refusal("the connection goes through a pooler in statement mode, which gives each statement another session", DIRECT),
    ),
    (_CONFIGURED, Refusal("the server does not take a setting that is sent with the login", "Correct the extra `options`")),
    (
        r"invalid .* value|bad value for|invalid connection option|invalid integer",
        Refusal("the driver does not take one of the extras", "Correct the extras in the connection"),
    ),
    # Before the next entry: a server that shuts down may end the connection during the TLS handshake.
    (_BROKEN, _ELSEWHERE),
    (
        _ENCRYPTION,
        Refusal(
            "the connection cannot be encrypted as it is configured, and nothing was sent in plain text",
            "Correct sslmode, sslrootcert, sslcert and sslkey in the extras, or turn encryption on in the server",
        ),
    ),
)

_PASSING = ("08", "53", "57")
"""SQLSTATE classes of temporary errors: lost connections, also from a full pool; exhausted resources; a server that shuts down."""

_NO_ROOM = Refusal(
    "the connection goes through a pooler, which gave the engine no second connection to the server in time",
    f"Make the pool larger. {DIRECT}",
    retryable=True,
)


def why_not_connected(error: BaseException) -> Refusal:
    """The refusal for a driver's error, by its text. For an unknown text, the server is away."""
    text = re.sub(_NAMES, '""', str(error.orig if isinstance(error, sa.exc.DBAPIError) else error))
    for pattern, refusal in _MEANINGS:
        if re.search(pattern, text):
            return refusal
    return _ELSEWHERE


class _NoAnswer(Exception):
    """A query got no answer in time."""


class _Failed(Exception):
    """A query failed.

    :param sqlstate: the SQLSTATE of the server or the pooler
    """

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate
        super().__init__(sqlstate)


class _Session:
    """A connection under proof. Its queries have a time limit, and prepare no statements: a pooler would leave those to other clients."""

    def __init__(self, driver: Any) -> None:
        self._pgconn: PGconn = driver.pgconn

    def ask(self, sql: str, patience: float = PATIENCE) -> tuple[str | None, ...]:
        """Executes a query.

        :param patience: seconds to wait for the answer
        :return: the first row as text
        :raises _NoAnswer: no answer came in time
        :raises _Failed: the server or the pooler answered with an error
        """
        row: tuple[str | None, ...] = ()
        self._pgconn.send_query(sql.encode())
        deadline = time.monotonic() + patience
        while True:
            while self._pgconn.is_busy():
                self._wait(deadline)
            result = self._pgconn.get_result()
            if result is None:
                return row
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                state = result.error_field(pq.DiagnosticField.SQLSTATE)
                raise _Failed(state.decode() if state else "unknown")
            values = [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []
            row = tuple(None if value is None else value.decode() for value in values)

    def is_notified(self, channel: str) -> bool:
        """Whether a notification arrives in time, without any query."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._pgconn.consume_input()
            while (notice := self._pgconn.notifies()) is not None:
                if notice.relname.decode() == channel:
                    return True
            try:
                self._wait(deadline)
            except _NoAnswer:
                return False

    def _wait(self, deadline: float) -> None:
        readable, _, _ = select.select([self._pgconn.socket], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise _NoAnswer
        self._pgconn.consume_input()

    def server(self, patience: float = PATIENCE) -> str:
        """The PID of the server process that answers."""
        return str(self.ask("SELECT pg_catalog.pg_backend_pid()", patience)[0])


class OwnSessions:
    """Proves that the connections of one SQLAlchemy engine have sessions of their own.

    A direct connection needs two facts: the process named at login is the one that answers, and the server sees the client's port.
    PgBouncer and similar poolers name a process that does not exist. Then a trial decides, once per engine. It queries two connections
    in turn: they must never reach the same process, and never change theirs. So the trial refuses a shared session without changing it.
    Last, a connection outside any transaction must receive a notification from the other one. Only a pooler that keeps a session for
    the connection can deliver it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._proving = threading.Lock()
        self._proven = False

    def why_not(self, connection: sa.Connection) -> Refusal | None:
        """The reason why a connection has no session of its own; None if it has one."""
        driver: Any = connection.connection.driver_connection
        try:
            if _is_direct(driver):
                return None
            with self._proving:
                if self._proven:
                    return None
                why = self._try_out(_Session(driver))
                self._proven = why is None
                return why
        except _NoAnswer:
            return _NO_ROOM
        except _Failed as error:
            return _unproven(error.sqlstate)
        except psycopg.Error as error:
            # The second connection failed, or one of the two has ended.
            return why_not_connected(error)

    def _try_out(self, mine: _Session) -> Refusal | None:
        with self._another() as other:
            if _shares(mine, other):
                return Refusal(
                    "the connection goes through a pooler in transaction mode, which gives each transaction another session",
                    DIRECT,
                )
            channel = f"projection_rebuild_{secrets.token_hex(8)}"
            mine.ask(f"LISTEN {channel}")
            other.ask(f"NOTIFY {channel}")
            heard = mine.is_notified(channel)
            mine.ask(f"UNLISTEN {channel}")
            if not heard:
                return Refusal("a proxy or pooler on the way keeps no session of the server for each connection", DIRECT)
        return self._leaves_settings()

    @contextmanager
    def _another(self) -> Iterator[_Session]:
        """Opens one more connection, and closes it at the end of the context."""
        fairy = self._engine.raw_connection()
        try:
            driver: Any = fairy.driver_connection
            driver.autocommit = True
            yield _Session(driver)
        finally:
            # Not back to SQLAlchemy's pool: the connection may be in any state.
            fairy.invalidate()

    def _leaves_settings(self) -> Refusal | None:
        """Refuses a pooler that passes a session on with the settings of its last client. A harmless setting of the engine's own shows it."""
        token = secrets.token_hex(8)
        with self._another() as first:
            server = first.server()
            first.ask(f"SELECT pg_catalog.set_config('projection_rebuild.left', '{token}', false)")
        with ExitStack() as held:
            for _ in range(SPARE):
                try:
                    spare = held.enter_context(self._another())
                    pid, left = spare.ask(
                        "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('projection_rebuild.left', true)", SHORT
                    )
                except _NoAnswer:
                    return None
                if left == token:
                    with suppress(_Failed, _NoAnswer):
                        spare.ask("RESET projection_rebuild.left")
                    return Refusal(
                        "the pooler passes a session on with the settings of its last user",
                        "Set server_reset_query = DISCARD ALL (PgBouncer). " + DIRECT,
                    )
                if pid == server:
                    return None
        return None


def _shares(mine: _Session, other: _Session) -> bool:
    """Whether two connections reached the same session, or one of them changed its session."""
    met = {mine.server()}
    for _ in range(ROUNDS):
        # An open transaction occupies a session in every mode; the pooler may give it the one that the other connection had.
        other.ask("BEGIN READ ONLY")
        try:
            if other.server() in met:
                return True
            # In a small pool the application waits while the engine occupies this session.
            met.add(mine.server(patience=SHORT))
        finally:
            other.ask("ROLLBACK")
        # Twice in a row, since a pool that rotates its sessions could return the same one in every round.
        met |= {mine.server(), mine.server()}
        if len(met) > 1:
            return True
    return False


def _is_direct(driver: Any) -> bool:
    pid, port = _Session(driver).ask("SELECT pg_catalog.pg_backend_pid(), pg_catalog.inet_client_port()")
    return pid == str(driver.info.backend_pid) and port == own_port(driver.fileno())


def _unproven(sqlstate: str) -> Refusal:
    if sqlstate == psycopg.errors.ReadOnlySqlTransaction.sqlstate:
        return Refusal("it is a standby behind a pooler, and a standby takes no writes", "Connect to the primary, directly")
    reason = f"a proxy or pooler is on the way, and the engine cannot prove that each connection keeps its session (SQLSTATE {sqlstate})"
    return Refusal(reason, DIRECT, retryable=sqlstate.startswith(_PASSING))
