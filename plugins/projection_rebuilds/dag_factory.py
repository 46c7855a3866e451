"""Makes the DAG ``rebuild_<name>`` of each spec, and tells Airflow about the specs that cannot be used."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, AssetAlias, BaseOperator, CronTriggerTimetable, TaskGroup, TriggerRule

from include.projection_rebuild.errors import SpecError
from include.projection_rebuild.plan import order
from include.projection_rebuild.spec import RebuildSpec
from projection_rebuilds.operators.rebuild import (
    AtomicSwapOperator,
    CloneTablesOperator,
    DropOldTablesOperator,
    PlanOperator,
    ReconcileOperator,
    ReplayOperator,
    VerifyCountsOperator,
)
from projection_rebuilds.params import form
from projection_rebuilds.sensors.low_traffic import LowTrafficSensor
from projection_rebuilds.sensors.retention import RetentionSensor
from projection_rebuilds.specs import problem, read_specs

POOL = "projection_rebuilds"
"""Bounds how many replays run at once over all rebuilds; ``airflow_settings.yaml`` makes it."""

RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


def rebuild_dags() -> dict[str, DAG]:
    """The DAGs of all usable specs, by id."""
    return _build()[0]


def _build() -> tuple[dict[str, DAG], list[str]]:
    """The DAGs that can be made, by id, and what is wrong with the other specs."""
    specs = read_specs()
    dags: dict[str, DAG] = {}
    problems = list(specs.broken.values())
    for path, spec in specs.usable.items():
        try:
            dag = rebuild_dag(spec, path)
            # Airflow does this as well, but there a failure marks the DAGs of all other specs, too.
            dag.validate()  # type: ignore[no-untyped-call]
        except Exception as error:
            problems.append(problem(path, error))
        else:
            dags[dag.dag_id] = dag
    return dags, problems


def rebuild_dag(spec: RebuildSpec, path: Path) -> DAG:
    """The DAG of one spec."""
    with DAG(
        dag_id=f"rebuild_{spec.rebuild}",
        description=f"Rebuilds the read models of {spec.rebuild} without downtime",
        doc_md=_documentation(spec, path),
        # Without a start date and with no time to look back, unpausing never starts the run of a night that is over.
        schedule=CronTriggerTimetable(spec.schedule, timezone=spec.timezone, run_immediately=timedelta(0))
        if spec.schedule
        else None,
        catchup=False,
        # A run that only waits for its retention must not keep the next one from starting; the ledger refuses two runs
        # on the same tables.
        max_active_runs=16,
        params=form(spec),
        default_args=RETRIES | {"owner": "projection_rebuilds"},
        tags=["projection rebuild"],
        # Airflow would take a DAG that failed halfway, or that only broken_specs() has made, for one of the file's.
        auto_register=False,
    ) as dag:
        _tasks(spec, str(path))
    return dag


def _tasks(spec: RebuildSpec, path: str) -> None:
    plan = PlanOperator(task_id="plan", spec_path=path)
    clone = CloneTablesOperator(task_id="clone_tables", spec_path=path)
    replays = _replays(spec, path, clone)
    # A projector that was not chosen is skipped, and nothing is lost by that.
    verify = VerifyCountsOperator(task_id="verify_counts", spec_path=path, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    wait = LowTrafficSensor(task_id="wait_for_low_traffic", spec_path=path)
    swap = AtomicSwapOperator(task_id="atomic_swap", spec_path=path, alias=AssetAlias(spec.rebuild))
    reconcile = ReconcileOperator(task_id="reconcile", spec_path=path)
    retention = RetentionSensor(task_id="wait_for_retention", spec_path=path)
    drop = DropOldTablesOperator(task_id="drop_old_tables", spec_path=path)
    plan >> clone
    replays >> verify >> wait >> swap >> reconcile >> retention >> drop


def _replays(spec: RebuildSpec, path: str, clone: BaseOperator) -> list[BaseOperator]:
    """One task per projector, with the edges of their dependencies: the graph view is the dependency graph."""
    projectors = spec.load_projectors()
    tasks: dict[str, BaseOperator] = {}
    with TaskGroup(group_id="replay", tooltip="One task per projector"):
        for name in order(projectors):
            tasks[name] = ReplayOperator(
                task_id=name, spec_path=path, projector=name, pool=POOL, trigger_rule=TriggerRule.NONE_FAILED
            )
            clone >> tasks[name]
            for needed in projectors[name].depends_on:
                tasks[needed.name()] >> tasks[name]
    return list(tasks.values())


def _documentation(spec: RebuildSpec, path: Path) -> str:
    projectors = spec.load_projectors()
    rows = [f"| {name} | {', '.join(projectors[name].tables())} |" for name in order(projectors)]
    return "\n".join(
        [
            f"**Rebuilds the read models of {spec.rebuild}** while the application goes on: green tables are filled beside the "
            "live ones, checked, and switched in a quiet moment.",
            "",
            f"Spec: `{path.name}`. Schedule: `{spec.schedule or 'by hand only'}` ({spec.timezone}). Live writer: `{spec.live_writer.contract}`.",
            "",
            "| projector | tables |",
            "| --- | --- |",
            *rows,
            "",
            "Any task can be retried or cleared at any time; see `docs/operating.md`.",
        ]
    )


class _BrokenSpecs(DAG):
    """Carries the problems of spec files to Airflow's list of import errors, as they stand and without a traceback."""

    problems: str = ""

    def validate(self) -> None:
        """Called by Airflow for each DAG of a file.

        :raises SpecError: always; its message is what the list of import errors shows
        """
        raise SpecError(self.problems)


def broken_specs() -> DAG | None:
    """A stand-in for all specs that cannot be used, which Airflow turns into an import error; None if all are well."""
    problems = _build()[1]
    if not problems:
        return None
    stand_in = _BrokenSpecs(dag_id="projection_rebuild_broken_specs", schedule=None)
    stand_in.problems = "\n".join(problems)
    return stand_in
