"""MariaDB: the installed server, from Debian's package `mariadb-server`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import sqlalchemy as sa

from tests.servers.base import GivenServer, OwnServer, Server, ServerMissing

DURABLE = ["--innodb-buffer-pool-size=1G"]
FAST = ["--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=16M"]


class MariaDBServer(OwnServer):
    """A private MariaDB.

    :param program: the path of ``mariadbd``
    """

    def __init__(self, program: Path, *, durable: bool = False) -> None:
        super().__init__("mariadb", users=("mysql",), durable=durable)
        self._program = program
        self.url = sa.URL.create(
            "mysql+mysqldb", username="tests", host="127.0.0.1", port=self.port, database="mysql", query={"charset": "utf8mb4"}
        )

    def prepare(self) -> None:
        """See :class:`OwnServer`."""
        install = shutil.which("mariadb-install-db") or "/usr/bin/mariadb-install-db"
        self.run(
            install,
            "--no-defaults",
            f"--datadir={self.folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--tmpdir={self.folder}",
        )
        first = self.folder / "first.sql"
        first.write_text(
            "CREATE USER IF NOT EXISTS tests@'127.0.0.1';\nGRANT ALL ON *.* TO tests@'127.0.0.1' WITH GRANT OPTION;\n"
        )

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        # Each server needs its own tmpdir: a starting server removes the temporary tables of all servers that share it.
        return [
            str(self._program), "--no-defaults", f"--datadir={self.folder}/data", f"--tmpdir={self.folder}", f"--socket={self.folder}/socket",
            f"--pid-file={self.folder}/pid", "--bind-address=127.0.0.1", f"--port={self.port}", f"--init-file={self.folder}/first.sql",
            "--character-set-server=utf8mb4", "--local-infile=1", "--max-connections=500", "--skip-name-resolve", "--skip-log-bin",
            *(DURABLE if self.durable else FAST),
        ]  # fmt: skip


def mariadb_server(*, durable: bool = False) -> Server:
    """Starts the server for tests, or returns the one that the environment names.

    :raises ServerMissing: no MariaDB is installed; the message gives the remedy
    """
    if url := os.environ.get("REBUILD_TEST_MARIADB_URL"):
        return GivenServer(url)
    program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise ServerMissing(
            "no MariaDB: run `make setup` as root, or install mariadb-server, or name a server by "
            "REBUILD_TEST_MARIADB_URL=mysql+mysqldb://..."
        )
    server = MariaDBServer(Path(program), durable=durable)
    server.start()
    return server
