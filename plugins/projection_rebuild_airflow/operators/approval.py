"""Asks a person before the switch, with the comparison in the question; only where the run or its spec wants that."""

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
"""In the task's store: the verification that the question was about. It lives as long as the question itself."""


class ApproveSwapOperator(ApprovalOperator):
    """Passes at once where nobody has to be asked; else waits, holding no worker, until somebody approves or rejects.

    An answer counts for the verification that was shown with its question. Airflow keeps one question for each task of a run, and
    its text, when the task is cleared; so a second verification is never asked about under the first one's comparison.

    :param spec_path: the spec file
    :param on_question: told, with the task's context and a message, that a person has to decide
    """

    template_fields: Sequence[str] = ("spec_path",)
    ui_color = "#e8f3ec"

    def __init__(self, *, spec_path: str, on_question: Callable[[Context, str], None] | None = None, **kwargs: Any) -> None:
        super().__init__(subject="Switch the tables?", body="", **kwargs)
        self.spec_path = spec_path
        self.on_question = on_question

    def execute(self, context: Context) -> Any:
        """Asks, unless it need not, or the answer is there already."""
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            if not rebuild.approval_needed():
                self.log.info("nobody has to be asked: neither the run nor its spec (swap.approval) wants that")
                return None
            rebuild.look_again()
            if decided := rebuild.decided():
                self.log.info("%s has decided already", decided.by)
                return self._take(rebuild, context, bool(decided.value["approved"]), decided.by)
            report = rebuild.report()
        self._ask_once(context, _verification(report), report)
        self.subject = f"Switch {len(report.plan.tables)} tables of {report.rebuild} to what was rebuilt?"
        self.body = report.as_markdown()
        if self.on_question is not None:
            self.on_question(context, f"{self.subject} {self._where(context)}")
        return super().execute(context)

    def _where(self, context: Context) -> str:
        try:
            return f"Approve or reject it: {self.generate_link_to_ui(task_instance=context['ti'])}"
        except ValueError:
            # Airflow does not know the address of its own UI (api.base_url).
            return "Approve or reject it in Airflow, under the required actions"

    def _ask_once(self, context: Context, verification: str, report: Report) -> None:
        store = context.get("task_state_store")
        if store is None:
            self.log.info(report.as_markdown())
            raise AirflowFailException(
                "Airflow 3.2 cannot ask: it does not keep which verification a question is about. Read the comparison above; then approve or "
                "reject the switch on the rebuild's page (or as Rebuild.decide(...)) and clear this task. Blue is live and untouched"
            )
        asked = store.get(ASKED)
        if asked not in (None, verification):
            self.log.info(report.as_markdown())
            raise AirflowFailException(
                "Airflow keeps the first question of this task, and would show the comparison of an earlier verification "
                f"({asked}) for the one of {verification}. Read that one above; then approve or reject the switch on the rebuild's page (or "
                "as Rebuild.decide(...)) and clear this task, or trigger a new run. Blue is live and untouched"
            )
        store.set(ASKED, verification)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Goes on with the answer."""
        if event.get("error_type") == "timeout":
            raise AirflowFailException(
                f"nobody has answered within {self.response_timeout} (swap.approval_timeout). Blue is live and untouched, green stays: "
                "clear this task to ask again"
            )
        with airflow_errors(), open_rebuild(self.spec_path, context) as rebuild:
            verification = _verification(rebuild.report())
            if context["task_state_store"].get(ASKED) != verification:
                raise AirflowFailException(
                    f"the answer is about another verification than the last one ({verification}); it does not count. Clear this task"
                )
            # Nothing of ours ran while it was waited for.
            rebuild.look_again()
            user = event.get("responded_by_user") or {}
            approved, by = event["chosen_options"] == [self.APPROVE], user.get("name") or "somebody"
            rebuild.decide(approved, by=by)
            return self._take(rebuild, context, approved, by)

    def _take(self, rebuild: Rebuild, context: Context, approved: bool, by: str) -> str:
        if approved:
            self.log.info("approved by %s", by)
            return by
        rebuild.stand_down(f"rejected by {by}")
        self.log.info("rejected by %s: blue stays live; green stays for inspection until housekeeping removes it", by)
        below = sorted(context["task"].get_flat_relative_ids(upstream=False))
        raise DownstreamTasksSkipped(tasks=below)  # type: ignore[no-untyped-call]


def _verification(report: Report) -> str:
    at = report.verification.at if report.verification else None
    return at.isoformat() if at else ""
