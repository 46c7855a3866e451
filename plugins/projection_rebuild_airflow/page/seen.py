"""The raw data of one look at a rebuild, before the views put it into words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from projection_rebuild.api import Look, RebuildSpec, Report, RunSeen, TableSeen, Traffic
from projection_rebuild_airflow.ids import DagRunId


@dataclass(frozen=True)
class DagRunSeen:
    """The state of a DAG run in Airflow's database.

    :param state: the state of the DAG run as a whole
    :param tasks: the state of each task by its id; a mapped task has one state for all of its parts
    """

    id: DagRunId
    state: str
    tasks: Mapping[str, str]

    @property
    def goes_on(self) -> bool:
        """Whether Airflow runs it, or has queued it."""
        return self.state in ("running", "queued")


@dataclass(frozen=True)
class Seen:
    """The state of one rebuild at one moment.

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
        """The moment of the look."""
        return self.look.traffic.at

    def dag_run(self, run: RunSeen) -> DagRunSeen | None:
        """The DAG run behind a run of the ledger; None: Airflow knows none."""
        return self.dag_runs.get(run.report.run_id)
