"""Servers that encrypt, servers that cannot, and the certificates for both."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers.base import OwnServer
from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import PostgresServer

DAYS = "36500"


class Certificates:
    """An authority, a certificate of it for ``localhost`` (and not for 127.0.0.1), and an authority that has signed nothing."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="certificates-"))
        self.folder.chmod(0o755)
        for name in ("ca", "other_ca"):
            self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                          "-days", DAYS, "-subj", f"/CN={name}")  # fmt: skip
        self._openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"
        )
        (self.folder / "names").write_text("subjectAltName=DNS:localhost\n")
        self._openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.pem",
                      "-days", DAYS, "-extfile", "names")  # fmt: skip
        self.ca, self.other_ca = str(self.folder / "ca.pem"), str(self.folder / "other_ca.pem")

    def handed_to(self, server: OwnServer) -> tuple[str, str]:
        """Certificate and key where only the server reads them."""
        copies = []
        for name in ("server.pem", "server.key"):
            copy = Path(shutil.copy(self.folder / name, server.folder / name))
            if server.account is not None:
                os.chown(copy, server.account.pw_uid, server.account.pw_gid)
            copy.chmod(0o600)
            copies.append(str(copy))
        return copies[0], copies[1]

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)


class TlsPostgres(PostgresServer):
    """PostgreSQL that encrypts for whoever asks."""

    def encrypt(self, certificates: Certificates) -> None:
        """To be called before the start."""
        self._certificate, self._key = certificates.handed_to(self)

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [*super().command(), "-c", "ssl=on", "-c", f"ssl_cert_file={self._certificate}", "-c", f"ssl_key_file={self._key}"]


class TlsMariaDB(MariaDBServer):
    """MariaDB that encrypts for whoever asks."""

    def encrypt(self, certificates: Certificates) -> None:
        """To be called before the start."""
        self._certificate, self._key = certificates.handed_to(self)

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [*super().command(), f"--ssl-cert={self._certificate}", f"--ssl-key={self._key}"]


class TlsMySQL(MySQLServer):
    """MySQL that encrypts for whoever asks."""

    def encrypt(self, certificates: Certificates) -> None:
        """To be called before the start."""
        self._certificate, self._key = certificates.handed_to(self)

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [*super().command(), f"--ssl-cert={self._certificate}", f"--ssl-key={self._key}"]


class PlainMySQL(MySQLServer):
    """MySQL that cannot encrypt: it would make certificates for itself."""

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [*super().command(), "--auto-generate-certs=OFF"]
