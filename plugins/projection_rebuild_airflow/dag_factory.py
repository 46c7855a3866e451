"""Builds the DAGs ``rebuild_<name>`` and ``rollback_<name>`` of each spec, and reports broken specs to Airflow."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from airflow.sdk import (
    DAG,
    AssetAlias,
    BaseOperator,
    CronTriggerTimetable,
    TaskGroup,
    TriggerRule,
    XComArg,
)
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from projection_rebuild.api import ProjectorRegistry, RebuildSpec, SpecError
from projection_rebuild_airflow import notify, task_ids
from projection_rebuild_airflow.ids import rebuild_dag_id, rollback_dag_id
from projection_rebuild_airflow.operators.approval import ApproveSwapOperator
from projection_rebuild_airflow.operators.housekeeping import HousekeepingOperator
from projection_rebuild_airflow.operators.rebuild import (
    MAP_INDEX_LABEL,
    AtomicSwapOperator,
    BringBackOperator,
    CloneTablesOperator,
    DropOldTablesOperator,
    PlanOperator,
    ReconcileOperator,
    ReplayOperator,
    ReplayShardOperator,
    RollbackPlanOperator,
    VerifyCountsOperator,
)
from projection_rebuild_airflow.params import form, housekeeping_form, rollback_form
from projection_rebuild_airflow.sensors.low_traffic import LowTrafficSensor
from projection_rebuild_airflow.sensors.retention import RetentionSensor
from projection_rebuild_airflow.specs import problem, read_specs

_log = logging.getLogger(__name__)

POOL = "projection_rebuilds"
"""The pool that bounds how many replays run at once over all rebuilds; ``airflow_settings.yaml`` defines it."""

RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}


ROLLBACK_DOCUMENTATION = """
**Takes the last switch of {name} back**: it projects the events since then into the old tables, and switches to them while
the application works on. It keeps the tables that were live until then as `<table>_old`, so that a rollback of the rollback
goes forward again. Once the old tables are dropped, the plan refuses a rollback, with the reason.
"""


def rebuild_dags() -> dict[str, DAG]:
    """The DAGs of all usable specs, by id: a rebuild and a rollback for each spec. Logs the problems of all other specs."""
    dags, problems = _build()
    for spec_problem in problems:
        _log.warning("%s", spec_problem)
    return dags


def _build() -> tuple[dict[str, DAG], list[str]]:
    """The DAGs of all usable specs, by id, and the problems of the other specs."""
    specs = read_specs()
    dags: dict[str, DAG] = {}
    problems = list(specs.broken.values())
    for path, spec in specs.usable.items():
        try:
            of_spec = [rebuild_dag(spec, path, specs.projectors[path]), rollback_dag(spec, path)]
            for dag in of_spec:
                # Airflow validates them again; a failure there would break the DAGs of all other specs, too.
                dag.validate()  # type: ignore[no-untyped-call]
        except Exception as error:
            problems.append(problem(path, error))
        else:
            dags.update({dag.dag_id: dag for dag in of_spec})
    return dags, problems


def rebuild_dag(spec: RebuildSpec, path: Path, projectors: ProjectorRegistry | None = None) -> DAG:
    """The DAG that rebuilds the tables of one spec.

    :param projectors: the projectors of the spec; None: this function imports them
    """
    notify.check(spec, path)
    projectors = ProjectorRegistry.load(spec) if projectors is None else projectors
    with DAG(
        dag_id=rebuild_dag_id(spec.rebuild),
        description=f"Rebuilds the read models of {spec.rebuild} without downtime",
        doc_md=_documentation(spec, path, projectors),
        # Without a start date and with no time to look back, unpausing the DAG never starts the run of a past night.
        schedule=CronTriggerTimetable(spec.schedule, timezone=spec.timezone, run_immediately=timedelta(0))
        if spec.schedule
        else None,
        catchup=False,
        # A run that only waits for its retention must not block the next one. The ledger refuses two runs on the same
        # tables.
        max_active_runs=16,
        params=form(spec, projectors),
        deadline=_deadline(spec, path),
        default_args=RETRIES | {"owner": "projection_rebuilds"},
        tags=["projection rebuild"],
        # Otherwise Airflow would register a half-built DAG, and one that only broken_specs() has built.
        auto_register=False,
    ) as dag:
        _tasks(spec, projectors, _common(spec, path))
    return dag


def _common(spec: RebuildSpec, path: Path) -> dict[str, Any]:
    """The arguments that all tasks of a spec have.

    They are no default arguments of the DAG: Airflow would serialise those, callbacks as text.
    """
    return {"spec_path": str(path), "on_failure_callback": notify.OnFailure(spec)}


def _deadline(spec: RebuildSpec, path: Path) -> DeadlineAlert | None:
    """Airflow's alert for a run that has not swapped in time; None: the spec sets no deadline."""
    if spec.deadline is None:
        return None
    # The callback goes by its name: Airflow stores the name with the DAG, and the triggerer imports it.
    missed = AsyncCallback("projection_rebuild_airflow.notify.deadline_missed", kwargs={"spec_path": str(path)})
    return DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=spec.deadline, callback=missed)


def rollback_dag(spec: RebuildSpec, path: Path) -> DAG:
    """The DAG that takes back the last swap of a spec's tables."""
    with DAG(
        dag_id=rollback_dag_id(spec.rebuild),
        description=f"Makes the old tables of {spec.rebuild} live again, with all events since",
        doc_md=ROLLBACK_DOCUMENTATION.format(name=spec.rebuild),
        schedule=None,
        catchup=False,
        max_active_runs=16,
        params=rollback_form(spec),
        default_args=RETRIES | {"owner": "projection_rebuilds"},
        tags=["projection rebuild"],
        auto_register=False,
        # In an emergency, an operator should not have to unpause it first.
        is_paused_upon_creation=False,
    ) as dag:
        common = _common(spec, path)
        plan = RollbackPlanOperator(task_id=task_ids.PLAN, **common)
        back = BringBackOperator(task_id=task_ids.BRING_OLD_TABLES_UP_TO_DATE, pool=POOL, **common)
        plan >> back
        _swap_and_after(spec, common, back, "rolled_back")
    return dag


def _tasks(spec: RebuildSpec, projectors: ProjectorRegistry, common: dict[str, Any]) -> None:
    """Adds the tasks of a rebuild to the current DAG."""
    plan = PlanOperator(task_id=task_ids.PLAN, **common)
    clone = CloneTablesOperator(task_id=task_ids.CLONE_TABLES, **common)
    replays = _replays(spec, projectors, common, clone)
    # Airflow skips the task of a projector that the run did not choose; that must not skip the verification.
    verify = VerifyCountsOperator(task_id=task_ids.VERIFY_COUNTS, trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS, **common)
    approve = ApproveSwapOperator(
        task_id=task_ids.APPROVE_SWAP,
        response_timeout=spec.swap.approval_timeout,
        on_question=notify.Tell(spec, "approval_wanted"),
        **common,
    )
    plan >> clone
    replays >> verify >> approve
    _swap_and_after(spec, common, approve, "swapped")


def _swap_and_after(spec: RebuildSpec, common: dict[str, Any], before: BaseOperator, event: str) -> None:
    """Adds the tasks that a rebuild and a rollback share: all tasks from the gate on.

    :param before: the task after which the tables can be swapped
    :param event: the key of ``notify`` whose notifiers report the swap
    """
    wait = LowTrafficSensor(task_id=task_ids.WAIT_FOR_LOW_TRAFFIC, on_long_wait=notify.Tell(spec, "waiting_too_long"), **common)
    swap = AtomicSwapOperator(
        task_id=task_ids.ATOMIC_SWAP,
        alias=AssetAlias(spec.rebuild),
        on_success_callback=notify.OnSwitch(spec, event),
        **common,
    )
    reconcile = ReconcileOperator(task_id=task_ids.RECONCILE, **common)
    retention = RetentionSensor(task_id=task_ids.WAIT_FOR_RETENTION, **common)
    drop = DropOldTablesOperator(task_id=task_ids.DROP_OLD_TABLES, **common)
    before >> wait >> swap >> reconcile >> retention >> drop


def _replays(spec: RebuildSpec, projectors: ProjectorRegistry, common: dict[str, Any], clone: BaseOperator) -> list[BaseOperator]:
    """Adds one task for each projector, with an edge for each dependency.

    One more task is mapped over the shards of all projectors. It runs before the projectors that can be divided.
    Airflow skips it if the run has no shards.
    """
    dependencies = projectors.needs()
    tasks: dict[str, BaseOperator] = {}
    with TaskGroup(group_id=task_ids.REPLAY, tooltip="One task per projector, and one per shard"):
        shared: dict[str, Any] = common | {"pool": POOL, "trigger_rule": TriggerRule.NONE_FAILED}
        shards = ReplayShardOperator.partial(
            task_id=task_ids.SHARDS, map_index_template="{{ " + MAP_INDEX_LABEL + " }}", **shared
        ).expand_kwargs(XComArg(clone))
        for name in projectors.order():
            tasks[name] = ReplayOperator(task_id=name, projector=name, **shared)
            clone >> tasks[name]
            if projectors[name].partition() is not None and spec.begins_at_once(name):
                shards >> tasks[name]
            for dependency in dependencies[name]:
                tasks[dependency] >> tasks[name]
        for earlier, later in pairwise(spec.stages):
            for name in later.projectors:
                [tasks[projector] for projector in earlier.projectors] >> tasks[name]
    return list(tasks.values())


def _documentation(spec: RebuildSpec, path: Path, projectors: ProjectorRegistry) -> str:
    """The Markdown that Airflow shows on the page of the DAG."""
    rows = [f"| {name} | {', '.join(projectors[name].tables())} |" for name in projectors.order()]
    return "\n".join(
        [
            f"**Rebuilds the read models of {spec.rebuild}** while the application works on: it fills green tables beside the "
            "live ones, checks them, and switches to them in a quiet moment.",
            "",
            f"Spec: `{path.name}`. Schedule: `{spec.schedule or 'by hand only'}` ({spec.timezone}). Live writer: `{spec.live_writer.contract}`.",
            "",
            "| projector | tables |",
            "| --- | --- |",
            *rows,
            "",
            *_stages(spec),
            "Any task can be retried or cleared at any time; see `docs/how-to/stop-and-retry.md`.",
        ]
    )


def _stages(spec: RebuildSpec) -> list[str]:
    if not spec.stages:
        return []
    stages = " -> ".join(f"**{stage.name}** ({', '.join(stage.projectors)})" for stage in spec.stages)
    return [f"Stages, each in its own windows: {stages}.", ""]


HOUSEKEEPING_DOCUMENTATION = """
**Removes what dead runs of the rebuilds have left**: claims, checkpoints and green tables after `retention.keep_green` of
their spec, and retired tables when they are due, even if their run was deleted. It keeps all that belongs to a queued, running
or waiting run. Trigger it with "Only list" to see the leftovers.
"""


def housekeeping_dag() -> DAG | None:
    """The housekeeping DAG, with one task for each usable spec; None: no spec is usable."""
    specs = read_specs().usable
    if not specs:
        return None
    with DAG(
        dag_id="projection_housekeeping",
        description="Removes what dead runs of the rebuilds have left",
        doc_md=HOUSEKEEPING_DOCUMENTATION,
        schedule=CronTriggerTimetable("17 * * * *", timezone="UTC", run_immediately=timedelta(0)),
        catchup=False,
        max_active_runs=1,
        # Specs may share a ledger, in which two tasks at once would disturb each other.
        max_active_tasks=1,
        params=housekeeping_form(),
        default_args=RETRIES | {"owner": "projection_rebuilds"},
        tags=["projection rebuild"],
        # Without housekeeping, old tables would fill the disk.
        is_paused_upon_creation=False,
    ) as dag:
        for path, spec in specs.items():
            HousekeepingOperator(task_id=spec.rebuild, spec_path=str(path), on_failure_callback=notify.OnFailure(spec))
    return dag


class _BrokenSpecs(DAG):
    """Reports the problems of spec files in Airflow's list of import errors, unchanged and without a traceback."""

    problems: str = ""

    def validate(self) -> None:
        """Fails. Airflow calls this for each DAG of a file.

        :raises SpecError: always; the list of import errors shows its message
        """
        # The last problem ends in the error's code, and the error appends the code once more.
        raise SpecError(self.problems.removesuffix(f" [{SpecError.code}]"))


def broken_specs() -> DAG | None:
    """A stand-in DAG for all broken specs, which Airflow turns into an import error; None: all specs are usable."""
    problems = _build()[1]
    if not problems:
        return None
    stand_in = _BrokenSpecs(dag_id="projection_rebuild_broken_specs", schedule=None)
    stand_in.problems = "\n".join(problems)
    return stand_in
