"""Servers with TLS, servers without it, and certificates for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy as sa

from tests.servers.base import OwnServer, ServerMissing
from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import PROGRAM, MySQLServer, _installed, _unpacked
from tests.servers.postgres import INSTALLED, PostgresServer, _newest, installed_majors

DAYS = "36500"
NAMES = {"here": "IP:127.0.0.1", "elsewhere": "DNS:elsewhere.example"}
"""The names of the certificates with their subjects: the address of the servers, and another one."""

RELOADING = {
    "postgres": "SELECT pg_reload_conf()",
    "mariadb": "FLUSH SSL",
    "mysql": "ALTER INSTANCE RELOAD TLS",
}


class Certificates:
    """A certificate authority with certificates for each of :data:`NAMES`, and another authority that has signed none.

    :ivar ca: the file of the authority's certificate
    :ivar other_ca: the file of the other authority's certificate
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="certificates-"))
        self.folder.chmod(0o755)
        for name in ("ca", "other_ca"):
            self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                          "-days", DAYS, "-subj", f"/CN={name}")  # fmt: skip
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=nobody"
        )
        for name, subject in NAMES.items():
            (self.folder / "names").write_text(f"subjectAltName={subject}\n")
            self._openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out",
                          f"{name}.pem", "-days", DAYS, "-extfile", "names")  # fmt: skip
        self.ca, self.other_ca = str(self.folder / "ca.pem"), str(self.folder / "other_ca.pem")

    def remove(self) -> None:
        """Removes all files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def hand_to(self, server: OwnServer, name: str) -> None:
        """Copies the certificate of a name and its key into the server's folder, readable only by the server."""
        for source, target in ((f"{name}.pem", "server.pem"), ("server.key", "server.key"), ("ca.pem", "ca.pem")):
            copy = Path(shutil.copy(self.folder / source, server.folder / target))
            if server.account is not None:
                os.chown(copy, server.account.pw_uid, server.account.pw_gid)
            copy.chmod(0o600)

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


class TlsPostgres(PostgresServer):
    """PostgreSQL that encrypts if the client asks for it."""

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        files = ["-c", f"ssl_cert_file={self.folder}/server.pem", "-c", f"ssl_key_file={self.folder}/server.key"]
        return [*super().command(), "-c", "ssl=on", *files]


class TlsMariaDB(MariaDBServer):
    """MariaDB that encrypts if the client asks for it."""

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [*super().command(), f"--ssl-cert={self.folder}/server.pem", f"--ssl-key={self.folder}/server.key"]


class TlsMySQL(MySQLServer):
    """MySQL that encrypts if the client asks for it."""

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        own = [f"--ssl-ca={self.folder}/ca.pem", f"--ssl-cert={self.folder}/server.pem", f"--ssl-key={self.folder}/server.key"]
        return [*super().command(), *own]


class PlainMySQL(MySQLServer):
    """MySQL that cannot encrypt.

    By default MySQL generates its own certificates, also when it creates its data folder.
    """

    def __init__(self, program: Path, root: Path | None = None) -> None:
        super().__init__(program, root)
        self._server.append("--auto-generate-certs=OFF")


def plain_server(kind: str) -> OwnServer:
    """A server without TLS, not started yet."""
    match kind:
        case "postgres":
            return PostgresServer(_newest())
        case "mariadb":
            return MariaDBServer(_mariadbd())
        case _:
            return PlainMySQL(*_mysqld())


def encrypting_server(kind: str, certificates: Certificates) -> OwnServer:
    """A server with a certificate for its address, not started yet."""
    server: OwnServer
    match kind:
        case "postgres":
            server = TlsPostgres(_postgres())
        case "mariadb":
            server = TlsMariaDB(_mariadbd())
        case _:
            server = TlsMySQL(*_mysqld())
    certificates.hand_to(server, "here")
    return server


def change_certificate(kind: str, server: OwnServer, certificates: Certificates, name: str) -> None:
    """Makes the server present the certificate of another name, from the next connection on."""
    certificates.hand_to(server, name)
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(RELOADING[kind])


def _postgres() -> Path:
    """The newest installed PostgreSQL, because the wheel's is built without TLS.

    :raises ServerMissing: none is installed
    """
    if not (majors := installed_majors()):
        raise ServerMissing("no PostgreSQL with TLS: install Debian's package postgresql")
    return INSTALLED / majors[-1]


def _mariadbd() -> Path:
    return Path(shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or "mariadbd")


def _mysqld() -> tuple[Path, Path | None]:
    program = _installed()
    return (program, None) if program else (PROGRAM, _unpacked())
