"""Real database servers for tests: found or fetched, started on free ports with private data folders, and stopped."""

from __future__ import annotations

from tests.servers.base import GivenServer, OwnServer, Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql import mysql_server
from tests.servers.postgres import postgres_server

__all__ = ["GivenServer", "OwnServer", "Server", "mariadb_server", "mysql_server", "postgres_server"]
