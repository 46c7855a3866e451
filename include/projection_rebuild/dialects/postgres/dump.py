"""Reads a database's schema from ``pg_dump``, entry by entry, so that two dumps can be compared."""

from __future__ import annotations

import os
import re
import subprocess

import psycopg
import sqlalchemy as sa
from psycopg import pq

from projection_rebuild.errors import ProofFailed

_ENTRY = re.compile(r"\n--\n-- (?=Name: )")
# The headings of entries repeat the SET lines before them; the other lines differ with each dump.
_NOISE = re.compile(r"SET default_|\\|--$|$")
# Some servers keep an internal number among the options of each column, different for each table; their own pg_dump omits it.
_OWN_OPTION = re.compile(r"\bpg_attver=\d+, |(?:, )?\bpg_attver=\d+")
_NO_OPTION = "SET ();"


def dumped(connection: sa.Connection) -> dict[str, str]:
    """Every entry of ``pg_dump --schema-only`` by its heading, without the ledger's.

    pg_dump orders some entries, and the grants within one, by OIDs, which differ for a new table. So entries have no order here, and
    grants are sorted.

    :raises ProofFailed: pg_dump is not installed, or it does not work with this server
    """
    entries: dict[str, str] = {}
    for entry in _ENTRY.split(_pg_dump(connection))[1:]:
        entry_lines = (_OWN_OPTION.sub("", line) if " SET (" in line else line for line in entry.splitlines())
        heading, *lines = [line for line in entry_lines if not _NOISE.match(line) and not line.endswith(_NO_OPTION)]
        entries[heading] = "\n".join(sorted(lines) if "Type: ACL" in heading else lines)
    return entries


def _pg_dump(connection: sa.Connection) -> str:
    # Through the environment, since other users of the machine can read a command line.
    where = _environment(connection.connection.driver_connection.info)  # type: ignore[union-attr]
    # pg_dump sets up its session itself, except for the encoding, which would be the database's.
    command = [
        os.environ.get("REBUILD_PG_DUMP", "pg_dump"),
        "--schema-only",
        "--encoding=UTF8",
        "--exclude-table=*.projection_rebuild_*",
    ]
    try:
        done = subprocess.run(command, env=os.environ | where, check=True, capture_output=True, encoding="utf-8")  # noqa: S603 - a program of the user's
    except FileNotFoundError:
        raise ProofFailed("there is no pg_dump; install PostgreSQL's client, or name the program by REBUILD_PG_DUMP") from None
    except subprocess.CalledProcessError as error:
        raise ProofFailed(
            f"pg_dump failed: {error.stderr.strip()}; REBUILD_PG_DUMP may name one of the server's version"
        ) from None
    return done.stdout


def _environment(info: psycopg.ConnectionInfo) -> dict[str, str]:
    """The environment that makes pg_dump connect to the same server as this connection, with all its settings of TLS."""
    parameters = info.get_parameters() | {
        "host": info.host,
        "port": str(info.port),
        "dbname": info.dbname,
        "password": info.password,
    }
    variables = {option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar}
    return {variables[name]: value for name, value in parameters.items() if name in variables and value}
