"""What may be in the way of a rebuild."""

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
    """What a preflight looks at.

    :param schema: that of the tables and of the ledger
    :param tables: those of the run that exist
    :param ledger: the names of our own tables, which may not exist yet
    """

    schema: str | None
    tables: Sequence[TableSet]
    ledger: Sequence[str]


class PreflightProbe(Sessions):
    """Looks at the server, our rights and the tables before anything is done."""

    def too_old(self, connection: sa.Connection) -> list[Finding]:
        """Whether the server lacks what the other verbs need; nothing else can be asked of it then."""
        oldest, version = self._oldest(), tuple(connection.dialect.server_version_info or ())
        if version >= oldest:
            return []
        said, needed = (".".join(map(str, each)) for each in (version, oldest))
        problem = f"this is version {said}; rebuilds need {needed} or a newer one"
        return [Finding(about="server", problem=problem, remedy="upgrade it", refuses=True)]

    @abstractmethod
    def _oldest(self) -> tuple[int, ...]:
        """The first server version that has all that is used."""

    @abstractmethod
    def preflight(self, connection: sa.Connection, run_tables: RunTables) -> list[Finding]:
        """What of the server's settings, our rights and the tables' keys is in the way of a rebuild, or weakens it."""

    @abstractmethod
    def preflight_events(
        self, connection: sa.Connection, schema: str | None, table: str, columns: Sequence[str]
    ) -> list[Finding]:
        """Rights that reading, settling and fencing the event store need, and that we do not have."""

    def free_bytes(self, connection: sa.Connection) -> int | None:
        """How many bytes the database can still grow by; None where the server does not tell."""
        return None
