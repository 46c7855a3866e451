"""The data that outlives a run: its report, and the code that has projected its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from projection_rebuild.ledger.repository import Repository, as_json, as_moment, as_text, from_json, now
from projection_rebuild.ledger.run_record import Run


@dataclass(frozen=True)
class Code:
    """The code that has replayed a projector in a run.

    :param version: the author's name for this version; may be empty
    :param source: a hash of the projector's source
    :param seen_at: the first replay with this code
    """

    projector: str
    version: str
    source: str
    seen_at: datetime


class Reports(Repository):
    """The reports by run, and the code of its projectors."""

    def keep(self, run: Run, json: Mapping[str, Any], markdown: str) -> None:
        """Stores a run's report in place of an earlier one; a run that was planned again has a second report."""
        reports = self._schema.reports
        self._make(reports)
        same = (reports.c.run_id == run.run_id) & (reports.c.started_at == as_text(run.started_at))
        columns = {"json": as_json(dict(json)), "markdown": markdown, "made_at": now()}
        if not self._connection.execute(reports.update().where(same).values(columns)).rowcount:
            self._connection.execute(
                reports.insert().values(run_id=run.run_id, started_at=as_text(run.started_at), rebuild=run.rebuild, **columns)
            )

    def latest(self, rebuild: str, limit: int) -> list[dict[str, Any]]:
        """The last stored reports of a spec as JSON values, newest first."""
        reports = self._schema.reports
        if not self._has(reports):
            return []
        query = sa.select(reports.c.json).where(reports.c.rebuild == rebuild)
        newest_first = query.order_by(reports.c.started_at.desc()).limit(limit)
        return [from_json(text) for text in self._connection.execute(newest_first).scalars()]

    def add_code(self, projector: str, *, version: str, source: str) -> None:
        """Records the code that replays a projector, once for each run."""
        code = self._schema.code
        self._make(code)
        same = (code.c.run_id == self._run_id) & (code.c.projector == projector) & (code.c.source == source)
        if self._connection.execute(sa.select(code.c.source).where(same)).first() is None:
            try:
                self._connection.execute(
                    code.insert().values(run_id=self._run_id, projector=projector, source=source, version=version, seen_at=now())
                )
            except sa.exc.IntegrityError:
                # Another worker of this projector has recorded it first.
                return

    def code(self) -> list[Code]:
        """The code that has replayed projectors in the run, oldest first."""
        code = self._schema.code
        if not self._has(code):
            return []
        query = sa.select(code).where(code.c.run_id == self._run_id).order_by(code.c.seen_at, code.c.projector)
        return [Code(row.projector, row.version, row.source, as_moment(row.seen_at)) for row in self._connection.execute(query)]
