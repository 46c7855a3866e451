"""PgBouncer in front of a PostgreSQL: the installed pooler, from Debian's package `pgbouncer`."""

from __future__ import annotations

import shutil
import socket
import time

import sqlalchemy as sa

from tests.servers.base import START_SECONDS, OwnServer, Server, ServerMissing


class PgBouncer(OwnServer):
    """A private pooler.

    :param server: the server whose connections it pools
    :param settings: further settings of its section ``[pgbouncer]``
    :raises ServerMissing: PgBouncer is not installed
    """

    def __init__(self, server: Server, **settings: str) -> None:
        super().__init__("pgbouncer", users=("postgres",))
        self._server = server.url
        self._settings = settings
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/bin:/usr/bin")
        if program is None:
            raise ServerMissing("no PgBouncer: install Debian's package pgbouncer")
        self._program = program
        self.url = server.url.set(host="127.0.0.1", port=self.port)

    @property
    def socket_url(self) -> sa.URL:
        """The URL of the pooler by its Unix socket."""
        return self.url.set(host=None, port=None).update_query_dict({"host": str(self.folder), "port": str(self.port)})

    def prepare(self) -> None:
        """See :class:`OwnServer`."""
        word = str(self._server.password or "")
        (self.folder / "users").write_text(f'"{self._server.username}" "{word}"\n')
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": str(self.folder),
            "auth_type": "trust",
            "auth_file": str(self.folder / "users"),
            **self._settings,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        database = f"* = host={self._server.host} port={self._server.port or 5432}"
        (self.folder / "pgbouncer.ini").write_text("\n".join(["[databases]", database, "[pgbouncer]", *lines]) + "\n")

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        return [self._program, "-q", str(self.folder / "pgbouncer.ini")]

    def _wait(self) -> None:
        # Probes the port only: in statement mode the pooler refuses transactions, and so SQLAlchemy's connections.
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError as error:
                if time.monotonic() > deadline:
                    raise ServerMissing(
                        f"pgbouncer did not start:\n{(self.folder / 'server.log').read_text()[-2000:]}"
                    ) from error
                time.sleep(0.02)
