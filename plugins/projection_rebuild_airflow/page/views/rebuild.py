"""One rebuild as the page shows it: its open runs, traffic, tables and history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from projection_rebuild.api import RunSeen
from projection_rebuild_airflow.page.charts import Chart
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.views.history import PastRunView, charts_of, past_run_view, state_in_words
from projection_rebuild_airflow.page.views.runs import RunView, run_view
from projection_rebuild_airflow.page.views.tables import TableView, table_views
from projection_rebuild_airflow.page.views.tones import Tone
from projection_rebuild_airflow.page.views.traffic import Gauge, gate_message, gauges
from projection_rebuild_airflow.page.words import away, moment

SECONDS_AT_WORK, SECONDS_IDLE = 2.0, 10.0
"""Seconds between two requests of the page, while a run needs attention and otherwise."""


@dataclass(frozen=True)
class RebuildView:
    """One rebuild.

    :param at: the moment of the look, with the time zone of all moments on the page
    :param one: whether the page shows one run only
    :param again_in: seconds until the page should ask again
    """

    rebuild: str
    status: str
    tone: Tone
    at: str
    runs: Sequence[RunView]
    gauges: Sequence[Gauge]
    gate: str
    tables: Sequence[TableView]
    charts: Sequence[Chart]
    past: Sequence[PastRunView]
    one: bool
    again_in: float


def rebuild_view(seen: Seen, may_act: Callable[[str], bool], only: str = "") -> RebuildView:
    """The view of one rebuild.

    :param may_act: takes the id of a DAG; whether the user may change its runs
    :param only: the name of one run in the ledger; empty: all
    """
    if only:
        shown = [run for run in seen.look.runs if run.report.run_id == only]
    else:
        shown = [run for run in seen.look.runs if _needs_attention(seen, run)]
    runs = [run_view(seen, run, may_act) for run in shown]
    status, tone = (runs[0].headline, runs[0].tone) if runs else _idle_status(seen)
    return RebuildView(
        rebuild=seen.spec.rebuild,
        status=status,
        tone=tone,
        at=f"{moment(seen.at, seen.spec.zone)}, {seen.spec.zone.key}",
        runs=runs,
        gauges=gauges(seen),
        gate=gate_message(seen, shown),
        tables=table_views(seen),
        charts=charts_of(seen.past),
        past=[past_run_view(seen, report) for report in seen.past if only in ("", report.run_id)],
        one=bool(only),
        again_in=SECONDS_AT_WORK if runs else SECONDS_IDLE,
    )


def _needs_attention(seen: Seen, run: RunSeen) -> bool:
    """Whether Airflow runs it, or it holds claims and so blocks other runs of its tables."""
    dag_run = seen.dag_run(run)
    return bool(run.holds) or (dag_run is not None and dag_run.goes_on)


def _idle_status(seen: Seen) -> tuple[str, Tone]:
    if not seen.past:
        return "never rebuilt yet", Tone.IDLE
    last = seen.past[0]
    at = max(last.moved.values(), default=last.started_at)
    return f"idle; the last run was {state_in_words(seen, last)} {away(at, seen.at)}", Tone.IDLE
