"""Checks the server, the account's privileges and the tables before a rebuild."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from projection_rebuild.dialects.base.sessions import Sessions
from projection_rebuild.model.findings import Finding
from projection_rebuild.model.names import TableSet


@dataclass(frozen=True)
class RunTables:
    """The tables that a preflight checks.

    :param schema: the schema of the tables and of the ledger
    :param tables: the run's existing tables
    :param ledger: the names of the ledger's tables, which may not exist yet
    """

    schema: str | None
    tables: Sequence[TableSet]
    ledger: Sequence[str]


class PreflightProbe(Sessions):
    """Checks the server, the account's privileges and the tables before the engine changes anything."""

    def too_old(self, connection: sa.Connection) -> list[Finding]:
        """Refuses a server that is too old for the other methods; callers then call no other one."""
        oldest, version = self._oldest(), tuple(connection.dialect.server_version_info or ())
        if version >= oldest:
            return []
        actual, needed = (".".join(map(str, numbers)) for numbers in (version, oldest))
        problem = f"this is version {actual}; rebuilds need {needed} or a newer one"
        return [Finding(about="server", problem=problem, remedy="upgrade it", refuses=True)]

    @abstractmethod
    def _oldest(self) -> tuple[int, ...]:
        """The first server version that has all that the engine uses."""

    @abstractmethod
    def preflight(self, connection: sa.Connection, run_tables: RunTables) -> list[Finding]:
        """Settings of the server, missing privileges and properties of the tables that prevent or weaken a rebuild."""

    @abstractmethod
    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        """What prevents the engine from reading and fencing the event store and finding its high-water mark.

        Among them are the privileges that the account lacks.
        """

    def free_bytes(self, connection: sa.Connection) -> int | None:
        """The number of bytes by which the database can still grow; None: the server does not report it."""
        return None
