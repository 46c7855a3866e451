"""Measures how busy the database is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.names import TableSet


class TrafficProbe(Sessions):
    """Measures how busy the database is; None where the server does not count."""

    @abstractmethod
    def active_sessions(self, connection: sa.Connection) -> int | None:
        """Other sessions of this database that are executing a statement; None: the server does not count them."""

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        """Reads of the blue tables since the server began to count; None: the server does not count them.

        The unit differs: scans on PostgreSQL, rows on MySQL and MariaDB.
        """
        return None

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """The age in seconds of the oldest query or transaction of other clients on a blue table; 0: none is open.

        None: the server does not report it.
        """
        return None

    def replica_lag(self, connection: sa.Connection) -> float | None:
        """Seconds by which the slowest replica lags; 0: no replica is attached; None: the server does not know."""
        return None
