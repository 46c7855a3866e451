"""A connection that breaks while it is being encrypted is a server that is away, and no mistake in how the connection is configured."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import MySQLdb
import psycopg
import pytest
import sqlalchemy as sa

from projection_rebuild.dialects import dialect_for
from projection_rebuild.dialects.mysql import connection as mysql_connection
from projection_rebuild.dialects.postgres import connection as postgres_connection
from projection_rebuild.errors import ConnectionRefused

SSL_REQUEST = struct.pack("!II", 8, 80877103)
"""What a PostgreSQL client sends to have its connection encrypted; a request for GSSAPI is as long."""

MYSQL_GREETING = (
    b"\x0a8.4.0\0"
    + b"\0\0\0\0"
    + b"saltsalt\0"
    + b"\xff\xff\xff\x02\0\xff\xdf\x15"
    + bytes(10)
    + b"saltsaltsalt\0mysql_native_password\0"
)
"""Of a server that can do everything, encryption too."""

RESETS, CLOSES = "resets", "closes"


class Breaking:
    """A server that agrees to encrypt, and ends each connection at the client's first word of the handshake."""

    def __init__(self, kind: str, how: str) -> None:
        self._agree = {"postgresql": _agree_as_postgres, "mysql": _agree_as_mysql}[kind]
        self._how = how
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Ends the server."""
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                with client, suppress(OSError):
                    self._agree(client)
                    client.recv(65536)
                    if self._how == RESETS:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    else:
                        client.shutdown(socket.SHUT_WR)
                        client.recv(65536)


def _agree_as_postgres(client: socket.socket) -> None:
    while (asked := client.recv(8)) != SSL_REQUEST and asked:
        client.sendall(b"N")
    client.sendall(b"S")


def _agree_as_mysql(client: socket.socket) -> None:
    client.sendall(struct.pack("<I", len(MYSQL_GREETING))[:3] + b"\0" + MYSQL_GREETING)
    client.recv(36)


@pytest.fixture
def breaking() -> Iterator[Callable[[str, str], int]]:
    """Starts such a server, and gives its port."""
    servers: list[Breaking] = []

    def start(kind: str, how: str) -> int:
        servers.append(Breaking(kind, how))
        return servers[-1].port

    yield start
    for each in servers:
        each.close()


@pytest.mark.parametrize("how", [RESETS, CLOSES])
@pytest.mark.parametrize(
    ("kind", "driver", "asked"),
    [
        ("postgresql", "psycopg", {"sslmode": "require"}),
        ("postgresql", "psycopg", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("mysql", "mysqldb", {"ssl_mode": "REQUIRED"}),
        ("mysql", "mysqldb", {"ssl_mode": "VERIFY_IDENTITY"}),
    ],
)
def test_a_server_that_goes_away_in_the_handshake_is_away(
    breaking: Callable[[str, str], int], kind: str, driver: str, asked: dict[str, str], how: str
) -> None:
    url = sa.URL.create(f"{kind}+{driver}", "nobody", "none", "127.0.0.1", breaking(kind, how), "nothing")
    engine = sa.create_engine(url, connect_args=asked, poolclass=sa.NullPool)
    with (
        pytest.raises(ConnectionRefused, match="cannot be reached, or does not answer") as refused,
        dialect_for(engine).connect(),
    ):
        pass
    assert refused.value.retryable


# libpq 15 to 18 (fe-secure-openssl.c, fe-secure.c, fe-connect.c) and psycopg, as they put them.
AT = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '
PASSING = [
    "SSL SYSCALL error: Connection reset by peer",
    "SSL SYSCALL error: EOF detected",
    "SSL SYSCALL error: Success",
    "SSL SYSCALL error: Connection timed out",
    "SSL error: unexpected eof while reading",
    "SSL connection has been closed unexpectedly",
    "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\nSSL SYSCALL error: EOF detected",
    "could not send SSL negotiation packet: Broken pipe",
    "could not send GSSAPI negotiation packet: Broken pipe",
    "server sent an error response during SSL exchange",
]
CONFIGURED = [
    "server does not support SSL, but SSL was required",
    "SSL error: certificate verify failed",
    "SSL error: tlsv1 alert unknown ca",
    "SSL error: sslv3 alert handshake failure",
    "SSL error: wrong version number",
    "SSL error: unsupported protocol",
    "SSL error code 167772294",
    "could not establish SSL connection: unsafe legacy renegotiation disabled",
    "could not create SSL context: library has no ciphers",
    'could not read root certificate file "/a/b": no certificate or crl found',
    'root certificate file "/a/database" does not exist\nEither provide the file, use the system\'s trusted roots with sslrootcert=system, or change '
    "sslmode to disable server certificate verification.",
    'could not open certificate file "/a/role": Permission denied',
    'certificate present, but not private key file "/a/b"',
    'private key file "/a/b" has group or world access; file must have permissions u=rw (0600) or less',
    'could not load private key file "/a/b": bad decrypt',
    'certificate does not match private key file "/a/b": key values mismatch',
    'server certificate for "elsewhere" does not match host name "here"',
    'server certificate for "elsewhere" (and 2 other names) does not match host name "here"',
    "could not get server's host name from server certificate",
    "received invalid response to SSL negotiation: x",
    "received unencrypted data after SSL response",
    "FATAL:  connection requires a valid client certificate",
    "GSSAPI encryption required but it is not supported over a local socket",
    "server doesn't support GSSAPI encryption, but it was required",
    "channel binding required, but SSL not in use",
    "channel binding is required, but server did not offer an authentication method that supports channel binding",
    'weak sslmode "require" may not be used with sslrootcert=system (use "verify-full")',
    "host name must be specified for a verified SSL connection",
]


def _said(text: str) -> tuple[str, bool]:
    refusal = postgres_connection.why_not_connected(psycopg.OperationalError(text))
    return refusal.reason, refusal.retryable


@pytest.mark.parametrize("text", PASSING)
def test_what_passes_by_itself_on_postgresql(text: str) -> None:
    assert _said(AT + text) == ("the server cannot be reached, or does not answer", True)


@pytest.mark.parametrize("text", CONFIGURED)
def test_what_somebody_has_to_configure_on_postgresql(text: str) -> None:
    reason, retryable = _said(AT + text)
    assert "cannot be encrypted" in reason and not retryable


SPOKEN = ("SSLdb.example", "certificate.example", "GSSAPI", "no-such-user.example", "/run/SSL error: certificate verify failed")


@pytest.mark.parametrize("host", SPOKEN)
def test_the_name_of_a_host_says_nothing(host: str) -> None:
    away = "the server cannot be reached, or does not answer"
    for text in (
        f'connection failed: connection to server at "{host}" (10.0.0.1), port 5432 failed: Connection refused\n\tIs the server running on that '
        "host and accepting TCP/IP connections?",
        f'connection failed: connection to server on socket "{host}/.s.PGSQL.5432" failed: No such file or directory',
        f"failed to resolve host '{host}': [Errno -2] Name or service not known",
        f'could not translate host name "{host}" to address: Name or service not known',
        f"{AT}Connection refused\nMultiple connection attempts failed. All failures were:\n- host: '{host}', port: None, hostaddr: '::1': x",
    ):
        assert _said(text) == (away, True)


def test_the_names_of_roles_and_databases_say_nothing() -> None:
    assert _said(f'{AT}FATAL:  database "SSL error: certificate verify failed" does not exist')[0] == "there is no such database"
    assert _said(f'{AT}FATAL:  role "too many clients" does not exist')[0] == "there is no such role"
    assert _said(f'{AT}FATAL:  password authentication failed for user "SSL"') == (
        "the server does not accept login and password",
        False,
    )


# MariaDB's Connector/C and MySQL's own library, whichever the driver was built with.
@pytest.mark.parametrize(
    ("text", "retryable"),
    [
        ("TLS/SSL error: Connection reset by peer (104)", True),
        ("TLS/SSL error: Broken pipe (32)", True),
        ("TLS/SSL error: unexpected eof while reading", True),
        ("SSL connection error: error:0A000126:SSL routines::unexpected eof while reading", True),
        ("SSL connection error: error:00000005:lib(0)::reason(5)", True),
        ("TLS/SSL error: SSL is required, but the server does not support it", False),
        ("TLS/SSL error: certificate verify failed", False),
        ("TLS/SSL error: Certificate verification failure: The certificate is NOT trusted.", False),
        ("TLS/SSL error: wrong version number", False),
        ("TLS/SSL error: No such file or directory (2)", False),
        ("SSL connection error: SSL is required but the server doesn't support it", False),
        ("SSL connection error: error:0A000086:SSL routines::certificate verify failed", False),
        ("SSL connection error: Failed to set ciphers to use", False),
    ],
)
def test_what_passes_by_itself_on_the_mysql_family(text: str, retryable: bool) -> None:
    refusal = mysql_connection.why_not_connected(MySQLdb.OperationalError(2026, text))
    assert refusal.retryable is retryable
    assert ("cannot be encrypted" in refusal.reason) is not retryable
