"""Real database servers for tests. It finds or fetches them, and runs them on free ports with private data folders."""

from __future__ import annotations

from tests.servers.base import GivenServer, OwnServer, Server
from tests.servers.mariadb import mariadb_server
from tests.servers.mysql import mysql_server
from tests.servers.postgres import postgres_server

__all__ = ["GivenServer", "OwnServer", "Server", "mariadb_server", "mysql_server", "postgres_server"]
