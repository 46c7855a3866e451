"""The shape of the DAGs, and how the operators turn engine errors into task states."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import TimeRestriction

import include
from projection_rebuild.errors import Interrupted, SettleTimeout, SpecError, VerificationFailed
from projection_rebuild.operations.housekeeping import Housekeeping
from projection_rebuild.replay.projector_replay import ReplayResult
from projection_rebuild.replay.stages import Closed
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.spec.windows import StageSection
from projection_rebuild_airflow.dag_factory import POOL, broken_specs, housekeeping_dag, rebuild_dag, rebuild_dags, rollback_dag
from projection_rebuild_airflow.ids import ledger_id
from projection_rebuild_airflow.operators import housekeeping
from projection_rebuild_airflow.operators import rebuild as operators
from projection_rebuild_airflow.operators.housekeeping import HousekeepingOperator
from projection_rebuild_airflow.operators.rebuild import CloneTablesOperator, ReplayOperator, SpecOperator, airflow_errors
from projection_rebuild_airflow.runs import run_is_over

SPEC = Path(include.__path__[0]) / "rebuilds" / "universal.yaml"
DAGS = Path(include.__path__[0]).parent / "dags"


@pytest.fixture(scope="module")
def dag() -> DAG:
    return rebuild_dag(load_spec(SPEC), SPEC)


def test_the_graph_is_the_dependency_graph(dag: DAG) -> None:
    edges = {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}
    replays = {task.task_id for task in dag.tasks if task.task_id.startswith("replay.")} - {"replay.shards"}
    assert len(replays) == 6
    chain = [
        "verify_counts",
        "approve_swap",
        "wait_for_low_traffic",
        "atomic_swap",
        "reconcile",
        "wait_for_retention",
        "drop_old_tables",
    ]
    expected = {("plan", "clone_tables"), *itertools.pairwise(chain)}
    expected |= {("clone_tables", each) for each in replays} | {(each, "verify_counts") for each in replays}
    for child in ("SubscriptionItemProjector", "PaymentHistoryProjector"):
        expected.add(("replay.SubscriptionProjector", f"replay.{child}"))
    expected |= {("clone_tables", "replay.shards"), *(("replay.shards", each) for each in replays)}
    assert edges == expected


def test_a_stage_begins_when_the_one_before_it_is_done() -> None:
    spec = load_spec(SPEC)
    names = list(ProjectorRegistry.load(spec))
    stages = [StageSection(name="a", projectors=tuple(names[:4])), StageSection(name="b", projectors=tuple(names[4:]))]
    dag = rebuild_dag(spec.model_copy(update={"stages": tuple(stages)}), SPEC)
    for name in stages[1].projectors:
        above = dag.get_task(f"replay.{name}").upstream_task_ids
        assert {f"replay.{each}" for each in stages[0].projectors} <= above
        assert "replay.shards" not in above
    assert "replay.shards" in dag.get_task(f"replay.{names[0]}").upstream_task_ids
    assert "replay_now" in dag.params and "**a**" in str(dag.doc_md)


def test_a_replay_waits_for_its_window_without_a_worker_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    opens = datetime(2026, 1, 2, 22, tzinfo=UTC)
    answers: list[Any] = [Closed("A", "first", opens), ReplayResult("A", 5, 10, 1.0, 5)]

    class Night:
        def chosen(self) -> list[str]:
            return ["A"]

        def replay_in_stage(self, projector: str, **_: Any) -> Any:
            return answers.pop(0)

    @contextmanager
    def opened(*_: Any) -> Iterator[Night]:
        yield Night()

    monkeypatch.setattr(operators, "open_rebuild", opened)
    task = ReplayOperator(task_id="A", spec_path="spec.yaml", projector="A")
    with pytest.raises(TaskDeferred) as caught:
        task.execute({})  # type: ignore[typeddict-item]
    assert caught.value.trigger.serialize()[1]["moment"] == opens
    # As the task runner goes on once the trigger has fired.
    done = task.resume_execution(caught.value.method_name, {"event": opens}, {})  # type: ignore[typeddict-item]
    assert done == {"events": 5, "position": 10, "events_per_second": 5}


def test_a_rollback_ends_like_a_rebuild() -> None:
    dag = rollback_dag(load_spec(SPEC), SPEC)
    edges = {(task.task_id, below) for task in dag.tasks for below in task.downstream_task_ids}
    assert edges == set(
        itertools.pairwise(
            [
                "plan",
                "bring_old_tables_up_to_date",
                "wait_for_low_traffic",
                "atomic_swap",
                "reconcile",
                "wait_for_retention",
                "drop_old_tables",
            ]
        )
    )


def test_skipped_projectors_lose_nothing_and_failed_ones_stop_the_run(dag: DAG) -> None:
    assert dag.get_task("replay.PaymentHistoryProjector").trigger_rule == "none_failed"
    assert dag.get_task("verify_counts").trigger_rule == "none_failed_min_one_success"
    assert {task.pool for task in dag.tasks if task.task_id.startswith("replay.")} == {POOL}


def test_a_waiting_retention_does_not_block_the_schedule(dag: DAG) -> None:
    assert dag.max_active_runs > 1
    assert dag.catchup is False


def test_unpausing_does_not_start_the_run_of_a_night_that_is_over(dag: DAG) -> None:
    timetable = decode_timetable(encode_timetable(dag.timetable))
    restriction = TimeRestriction(earliest=dag.start_date, latest=None, catchup=dag.catchup)
    first = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert first is not None and first.run_after > datetime.now(UTC)


def test_two_readings_of_a_spec_make_the_same_dag() -> None:
    assert rebuild_dags().keys() == rebuild_dags().keys() == {"rebuild_universal", "rollback_universal"}
    assert broken_specs() is None


def test_there_is_a_housekeeper_for_each_usable_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dag = housekeeping_dag()
    assert dag is not None and {task.task_id for task in dag.tasks} == {"universal"}
    monkeypatch.setenv("PROJECTION_REBUILD_SPECS", str(tmp_path))
    assert housekeeping_dag() is None


def test_broken_specs_raise_what_is_wrong_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = SPEC.read_text(encoding="utf-8")
    (tmp_path / "a.yaml").write_text(good, encoding="utf-8")
    (tmp_path / "b.yaml").write_text(good, encoding="utf-8")
    (tmp_path / "c.yaml").write_text("rebuild: c\n", encoding="utf-8")
    monkeypatch.setenv("PROJECTION_REBUILD_SPECS", str(tmp_path))
    assert rebuild_dags().keys() == {"rebuild_universal", "rollback_universal"}
    stand_in = broken_specs()
    assert stand_in is not None
    with pytest.raises(SpecError) as caught:
        stand_in.validate()
    assert "b.yaml" in str(caught.value) and "a.yaml" in str(caught.value) and "c.yaml" in str(caught.value)
    assert "[PR-SPEC-01] [PR-SPEC-01]" not in str(caught.value) and str(caught.value).endswith("[PR-SPEC-01]")


ALL_PROJECTORS = SPEC.read_text(encoding="utf-8").partition("projectors:\n")[2].partition("\n\n")[0]
OF_A_USER = """
import include.universal.projectors as universal

class NotATuple(universal.ExpenseProjector):
    owns = universal.ExpenseProjector.owns[0]

class ByName(universal.ExpenseProjector):
    depends_on = ("SubscriptionProjector",)

class Hen(universal.ExpenseProjector):
    pass

class Egg(universal.MonthlySummaryProjector):
    depends_on = (Hen,)

Hen.depends_on = (Egg,)
"""


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("  - include.universal.projectors:SubscriptionProjector\n", "", ["SubscriptionProjector", "add it to `projectors`"]),
        (ALL_PROJECTORS, "  - of_a_user:Hen\n  - of_a_user:Egg", ["circle", "Hen", "Egg"]),
        (ALL_PROJECTORS, "  - of_a_user:NotATuple", ["`owns` is no tuple", "projectors"]),
        (ALL_PROJECTORS, "  - of_a_user:ByName", ["projectors"]),
        (ALL_PROJECTORS, "  - leaves:Projector", ["SystemExit"]),
        ("72h", "99999999999d", ["retention.drop_after", "36500d"]),
        ("When it starts", "When it st\xe4rts", ["UTF-8"]),
    ],
)
def test_a_spec_that_breaks_in_any_way_hides_no_other(
    was: str, becomes: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_a_user.py").write_text(OF_A_USER, encoding="utf-8")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)", encoding="utf-8")
    good = SPEC.read_text(encoding="utf-8")
    assert was in good
    bad = good.replace(was, becomes, 1).replace("rebuild: universal", "rebuild: bad", 1)
    (tmp_path / "good.yaml").write_text(good, encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(bad, encoding="latin-1")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PROJECTION_REBUILD_SPECS", str(tmp_path))
    bag = DagBag(dag_folder=str(DAGS))
    assert {"rebuild_universal", "rollback_universal"} < bag.dags.keys()
    ((file, message),) = bag.import_errors.items()
    assert Path(file).name == "projection_rebuild_errors.py"
    assert "Traceback" not in message
    for word in ["bad.yaml", *words]:
        assert word in message


@pytest.mark.parametrize(
    ("error", "becomes"),
    [(VerificationFailed("no"), AirflowFailException), (SettleTimeout("later"), SettleTimeout), (OSError("net"), OSError)],
)
def test_only_what_a_retry_can_repair_is_retried(error: Exception, becomes: type[Exception]) -> None:
    with pytest.raises(becomes), airflow_errors():
        raise error


class FakeRebuild:
    """An engine whose step is killed while it runs."""

    def __init__(self, operator: SpecOperator) -> None:
        self.operator = operator
        self.cancelled = 0

    def clone_tables(self) -> list[str]:
        self.operator.on_kill()
        return ["t_rebuild"]

    def keep_house(self, **asked: Any) -> Housekeeping:
        self.operator.on_kill()
        return Housekeeping(removed=[], kept=[])

    def shards(self) -> list[tuple[str, int]]:
        return []

    def cancel_query(self) -> None:
        self.cancelled += 1


def test_a_killed_task_never_ends_as_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = CloneTablesOperator(task_id="clone", spec_path="spec.yaml")
    fake = FakeRebuild(operator)
    monkeypatch.setattr(operators, "open_rebuild", lambda *_: nullcontext(fake))
    with pytest.raises(Interrupted):
        operator.execute({})
    assert fake.cancelled == 1


def test_a_killed_housekeeper_never_ends_as_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = HousekeepingOperator(task_id="house", spec_path=f"{SPEC}")
    fake = FakeRebuild(operator)
    monkeypatch.setattr(housekeeping, "open_spec", lambda *_: nullcontext(fake))
    context: Any = {"dag": SimpleNamespace(dag_id="house"), "run_id": "r", "ti": None, "params": {"only_list": False}}
    with pytest.raises(Interrupted):
        operator.execute(context)
    assert fake.cancelled == 1


class FakeTaskInstance:
    def __init__(self, alive: int) -> None:
        self.alive = alive
        self.asked: list[Any] = []

    def get_dr_count(self, **asked: Any) -> int:
        self.asked.append(asked)
        return self.alive


def test_a_run_is_over_when_airflow_knows_no_living_run_of_its_name() -> None:
    ti: Any = FakeTaskInstance(0)
    assert run_is_over(ti, ledger_id("rebuild_x", "manual__1"))
    assert ti.asked == [{"dag_id": "rebuild_x", "run_ids": ["manual__1"], "states": ["queued", "running"]}]
    assert not run_is_over(FakeTaskInstance(1), ledger_id("rebuild_x", "manual__1"))  # type: ignore[arg-type]
    assert not run_is_over(FakeTaskInstance(0), "from-a-repl")  # type: ignore[arg-type]
