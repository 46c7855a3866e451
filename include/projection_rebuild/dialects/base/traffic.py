"""Who uses the database now."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.names import TableSet


class TrafficProbe(Sessions):
    """Tells how busy the database is; none of it where nobody counts."""

    @abstractmethod
    def active_sessions(self, connection: sa.Connection) -> int | None:
        """Sessions of this database that are executing a statement, ours left out; None where nobody counts them."""

    def table_reads(self, connection: sa.Connection, tables: Sequence[TableSet]) -> int | None:
        """How often the blue tables have been read since the server began to count; None where nobody counts.

        What is counted differs: scans on PostgreSQL, rows on MySQL and MariaDB.
        """
        return None

    def transaction_age(self, connection: sa.Connection, tables: Sequence[TableSet]) -> float | None:
        """Seconds since the oldest query or transaction of others began that has touched a blue table; 0: there is none.

        None where nobody knows.
        """
        return None

    def replica_lag(self, connection: sa.Connection) -> float | None:
        """Seconds by which the slowest replica of this server is behind; 0: there is none. None where nobody knows."""
        return None
