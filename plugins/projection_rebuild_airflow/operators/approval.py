"""Waits for a person's approval before the swap, if the run or its spec requires it.

The question has the comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from projection_rebuild.api import Rebuild, Report
from projection_rebuild_airflow.operators.rebuild import airflow_errors
from projection_rebuild_airflow.runs import open_rebuild

ASKED = "asked"
"""The key in the task's store for the verification that the question is about.

Airflow keeps it as long as the question.
"""


class ApproveSwapOperator(ApprovalOperator):
    """Passes at once if no approval is required. Otherwise it waits for an answer, and holds no worker.

    An answer counts only for the verification whose comparison the question shows. When the task is cleared, Airflow
    keeps its question with the old text. So the operator refuses to ask about a second verification under the
    comparison of the first one.

    :param spec_path: the spec file
    :param on_question: the operator calls it when a person has to decide, with the task's context and a message
    """

    template_fields: Sequence[str] = ("spec_path",)
    ui_color = "#e8f3ec"

    def __init__(self, *, spec_path: str, on_question: Callable[[Context, str], None] | None = None, **kwargs: Any) -> None:
        super().__init__(subject="Switch the tables?", body="", **kwargs)
        self.spec_path = spec_path
        self.on_question = on_question

    def execute(self, context: Context) -> Any:
        """Asks for approval, unless none is required or a person has decided already."""
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            if not rebuild.approval_needed():
                self.log.info("no approval is required, neither by the run nor by its spec (swap.approval)")
                return None
            rebuild.look_again()
            if decision := rebuild.decided():
                self.log.info("%s has decided already", decision.by)
                return self._follow(rebuild, context, bool(decision.value["approved"]), decision.by)
            report = rebuild.report()
        self._remember_question(context, report)
        self.subject = f"Switch {len(report.plan.tables)} tables of {report.rebuild} to what was rebuilt?"
        self.body = report.as_markdown()
        if self.on_question is not None:
            self.on_question(context, f"{self.subject} {self._where_to_answer(context)}")
        return super().execute(context)

    def _where_to_answer(self, context: Context) -> str:
        try:
            return f"Approve or reject it: {self.generate_link_to_ui(task_instance=context['ti'])}"
        except ValueError:
            # Airflow does not know the address of its own UI (api.base_url).
            return "Approve or reject it in Airflow, under the required actions"

    def _remember_question(self, context: Context, report: Report) -> None:
        """Stores which verification the question is about.

        :raises AirflowFailException: Airflow cannot ask about this verification
        """
        verification = _verification_of(report)
        store = context.get("task_state_store")
        if store is None:
            self.log.info(report.as_markdown())
            raise AirflowFailException(
                "Airflow 3.2 cannot ask: it does not keep which verification a question is about. Read the comparison above; then approve or "
                "reject the switch on the rebuild's page (or as Rebuild.decide(...)) and clear this task. Blue is live and untouched"
            )
        earlier = store.get(ASKED)
        if earlier not in (None, verification):
            self.log.info(report.as_markdown())
            raise AirflowFailException(
                "Airflow keeps the first question of this task, and would show the comparison of an earlier verification "
                f"({earlier}) for the one of {verification}. Read that one above; then approve or reject the switch on the rebuild's page (or "
                "as Rebuild.decide(...)) and clear this task, or trigger a new run. Blue is live and untouched"
            )
        store.set(ASKED, verification)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Continues with the answer.

        :param event: Airflow's event: the chosen options and who responded, or a timeout
        :raises AirflowFailException: no answer came in time, or the answer is about another verification
        """
        if event.get("error_type") == "timeout":
            raise AirflowFailException(
                f"nobody has answered within {self.response_timeout} (swap.approval_timeout). Blue is live and untouched, green stays: "
                "clear this task to ask again"
            )
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            verification = _verification_of(rebuild.report())
            if context["task_state_store"].get(ASKED) != verification:
                raise AirflowFailException(
                    f"the answer is about another verification than the last one ({verification}); it does not count. Clear this task"
                )
            # While Airflow waited for the answer, the engine did not look at the tables.
            rebuild.look_again()
            user = event.get("responded_by_user") or {}
            approved, by = event["chosen_options"] == [self.APPROVE], user.get("name") or "somebody"
            rebuild.decide(approved, by=by)
            return self._follow(rebuild, context, approved, by)

    def _follow(self, rebuild: Rebuild, context: Context, approved: bool, by: str) -> str:
        """Lets the run continue, or ends it without a swap.

        :param by: the person who decided
        :returns: the same
        """
        if approved:
            self.log.info("approved by %s", by)
            return by
        rebuild.stand_down(f"rejected by {by}")
        self.log.info("rejected by %s: blue stays live; green stays for inspection until housekeeping removes it", by)
        downstream = sorted(context["task"].get_flat_relative_ids(upstream=False))
        raise DownstreamTasksSkipped(tasks=downstream)  # type: ignore[no-untyped-call]


def _verification_of(report: Report) -> str:
    """The id of a report's last verification: the moment at which it ended; empty: there is none."""
    at = report.verification.at if report.verification else None
    return at.isoformat() if at else ""
