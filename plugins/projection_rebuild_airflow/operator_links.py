"""Links on our tasks in Airflow's UI: to our page for the run, and to the DAG that takes its swap back."""

from __future__ import annotations

from airflow.configuration import conf
from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.types import TaskInstanceKey

from projection_rebuild_airflow import links
from projection_rebuild_airflow.ids import rollback_dag_id
from projection_rebuild_airflow.operators.approval import ApproveSwapOperator
from projection_rebuild_airflow.operators.rebuild import AtomicSwapOperator, RebuildOperator, ReconcileOperator
from projection_rebuild_airflow.sensors.low_traffic import LowTrafficSensor
from projection_rebuild_airflow.sensors.retention import RetentionSensor


def _with_subclasses(operator: type[BaseOperator]) -> list[type[BaseOperator]]:
    """An operator class and all of its subclasses: Airflow compares a link's classes exactly."""
    return [operator, *(descendant for child in operator.__subclasses__() for descendant in _with_subclasses(child))]


class RebuildPageLink(BaseOperatorLink):
    """Opens our page for the run of a task."""

    name = "Projection rebuild"
    operators = [*_with_subclasses(RebuildOperator), ApproveSwapOperator, LowTrafficSensor, RetentionSensor]  # noqa: RUF012 - Airflow's own way

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """See :class:`BaseOperatorLink`."""
        return _absolute(links.run_tab(ti_key.dag_id, ti_key.run_id))


class RollbackLink(BaseOperatorLink):
    """Opens the DAG that takes the swap back. The operator triggers it there, in its form."""

    name = "Roll back"
    operators = [AtomicSwapOperator, ReconcileOperator, RetentionSensor]  # noqa: RUF012 - Airflow's own way

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """See :class:`BaseOperatorLink`."""
        _, _, rebuild = ti_key.dag_id.partition("_")
        return _absolute(links.dag(rollback_dag_id(rebuild)))


def _absolute(path: str) -> str:
    return conf.get("api", "base_url", fallback="").rstrip("/") + "/" + path
