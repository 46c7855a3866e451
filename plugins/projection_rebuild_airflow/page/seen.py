"""What one look at a rebuild has found, before anything of it is put into words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from projection_rebuild.api import Look, RebuildSpec, Report, RunSeen, TableSeen, Traffic
from projection_rebuild_airflow.ids import DagRunId


@dataclass(frozen=True)
class DagRunSeen:
    """A DAG run as Airflow has it.

    :param state: the state of the DAG run as a whole
    :param tasks: the state of each task by its id; a mapped task has one state for all of its parts
    """

    id: DagRunId
    state: str
    tasks: Mapping[str, str]

    @property
    def goes_on(self) -> bool:
        """Whether Airflow runs it, or is about to."""
        return self.state in ("running", "queued")


@dataclass(frozen=True)
class Seen:
    """All that was seen of one rebuild at one moment.

    :param past: the reports of the last runs, the newest first
    :param earlier: the traffic at an earlier look, from which appends and reads are counted; None: there was none
    :param dag_runs: the runs that Airflow knows, by their names in the ledger
    """

    spec: RebuildSpec
    look: Look
    tables: Sequence[TableSeen]
    past: Sequence[Report]
    earlier: Traffic | None
    dag_runs: Mapping[str, DagRunSeen]

    @property
    def at(self) -> datetime:
        """The moment."""
        return self.look.traffic.at

    def dag_run(self, run: RunSeen) -> DagRunSeen | None:
        """The DAG run behind a run of the ledger; None: Airflow knows none."""
        return self.dag_runs.get(run.report.run_id)
