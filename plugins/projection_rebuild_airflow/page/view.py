"""What the page shows, from what was seen: words, shares and links, nothing that a template would have to work out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from projection_rebuild.api import (
    PAUSE,
    SHARD,
    SWAP_NOW,
    TRAFFIC,
    DeadLetter,
    Look,
    Place,
    Probe,
    Progress,
    RebuildSpec,
    Report,
    RunSeen,
    RunState,
    Said,
    TableComparison,
    TableSeen,
    Traffic,
    Verification,
    appends_per_minute,
    closing,
    is_before,
    measured,
    next_opening,
    share_done,
)
from projection_rebuild_airflow import links
from projection_rebuild_airflow.page.charts import Chart, Value, chart
from projection_rebuild_airflow.page.words import away, count, moment, size, span


class Tone(StrEnum):
    """How something is to be taken; the colours are the style sheet's."""

    OK = "ok"
    BUSY = "busy"
    WAIT = "wait"
    BAD = "bad"
    IDLE = "idle"


TONES = {
    "success": Tone.OK,
    "running": Tone.BUSY,
    "restarting": Tone.BUSY,
    "queued": Tone.WAIT,
    "scheduled": Tone.WAIT,
    "deferred": Tone.WAIT,
    "awaiting_input": Tone.WAIT,
    "up_for_reschedule": Tone.WAIT,
    "up_for_retry": Tone.WAIT,
    "failed": Tone.BAD,
}
"""Of the states that Airflow gives to tasks; the others are idle."""

WEIGHT = ["failed", "upstream_failed", "up_for_retry", "running", "awaiting_input", "deferred", "queued", "scheduled"]
"""Which state speaks for a group of tasks: the first of these that one of them has."""

STEPS = {
    "plan": "plan",
    "clone_tables": "clone",
    "replay": "replay",
    "bring_old_tables_up_to_date": "bring up to date",
    "verify_counts": "verify",
    "approve_swap": "approve",
    "wait_for_low_traffic": "wait for low traffic",
    "atomic_swap": "switch",
    "reconcile": "reconcile",
    "wait_for_retention": "keep old tables",
    "drop_old_tables": "drop old tables",
}
"""The tasks of our DAGs, a task group among them, in their order."""


@dataclass(frozen=True)
class Action:
    """What somebody with the right to may do to a run.

    :param name: the last word of the route that does it
    :param warning: what is asked before it is done
    """

    name: str
    label: str
    warning: str


PAUSE_REPLAYS = Action("pause", "Pause", "Let all replays of this run commit what they have, and wait?")
RESUME_REPLAYS = Action("resume", "Resume", "Let the replays of this run go on?")
SWITCH_NOW = Action(
    "swap-now", "Swap now", "Switch as soon as verification (and approval) has passed, without waiting for low traffic?"
)
APPROVE = Action(
    "approve", "Approve", "Let green replace blue, as this verification found it? Clear the task approve_swap afterwards."
)
REJECT = Action("reject", "Reject", "Leave blue live, and end this run without a switch? Clear the task approve_swap afterwards.")


@dataclass(frozen=True)
class InAirflow:
    """A DAG run as Airflow has it.

    :param state: the run's
    :param tasks: the states of its tasks; the parts of a mapped one count together
    """

    state: str
    tasks: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """All that was seen of one rebuild at one moment.

    :param past: the reports of the last runs, the newest first
    :param earlier: the traffic at an earlier look, from which appends and reads are counted; None: there was none
    :param airflow: runs that Airflow knows, by their names in the ledger
    """

    spec: RebuildSpec
    look: Look
    tables: Sequence[TableSeen]
    past: Sequence[Report]
    earlier: Traffic | None
    airflow: Mapping[str, InAirflow]

    @property
    def at(self) -> datetime:
        """The moment."""
        return self.look.traffic.at


@dataclass(frozen=True)
class Step:
    """One task of a run, or its group of replays."""

    name: str
    state: str
    tone: Tone
    href: str


@dataclass(frozen=True)
class ReplayView:
    """One projector's replay; ``share`` is from 0 to 1."""

    projector: str
    share: float
    tone: Tone
    events: str
    rate: str
    left: str
    lag: str
    rests: str
    href: str


@dataclass(frozen=True)
class ComparisonView:
    """One table in a verification; ``samples`` are keys of rows by what is different about them."""

    table: str
    before: str
    after: str
    drift: str
    allowed: str
    too_far: bool
    identical: str
    differing: str
    only_before: str
    only_after: str
    samples: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class VerificationView:
    """What a verification found."""

    passed: bool
    failures: Sequence[str]
    tables: Sequence[ComparisonView]


@dataclass(frozen=True)
class RunView:
    """One run that goes on, or that needs somebody.

    :param aside: the first events that it has set aside; ``more_aside``: how many others there are
    """

    key: str
    dag_id: str
    dag_run_id: str
    title: str
    headline: str
    tone: Tone
    since: str
    facts: Sequence[str]
    href: str
    steps: Sequence[Step]
    replays: Sequence[ReplayView]
    aside: Sequence[str]
    more_aside: int
    verification: VerificationView | None
    answer_href: str
    actions: Sequence[Action]


@dataclass(frozen=True)
class Gauge:
    """One measure of traffic against its limit; ``share`` is of the limit, None where there is none."""

    label: str
    value: str
    limit: str
    share: float | None
    tone: Tone


@dataclass(frozen=True)
class TableView:
    """A table under one of its names.

    :param share: its bytes against the largest table's
    """

    table: str
    name: str
    role: str
    rows: str
    size: str
    share: float
    note: str
    href: str


@dataclass(frozen=True)
class PastView:
    """A run of the history."""

    key: str
    title: str
    started: str
    state: str
    tone: Tone
    reason: str
    by: str
    projectors: str
    duration: str
    pause: str
    rate: str
    href: str
    report: str
    facts: Sequence[str]
    verification: VerificationView | None


@dataclass(frozen=True)
class View:
    """One rebuild as the page shows it.

    :param one: only one run is shown
    :param again_in: in how many seconds it is worth asking again
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
    past: Sequence[PastView]
    one: bool
    again_in: float


def view(seen: Seen, may_act: Callable[[str], bool], only: str = "") -> View:
    """What the page shows.

    :param may_act: whether the reader may act on runs of a DAG
    :param only: the name of one run in the ledger; empty: all
    """
    opened = [
        each
        for each in seen.look.runs
        if each.report.run_id == only or (not only and needs_eyes(each, seen.airflow.get(each.report.run_id)))
    ]
    runs = [_Running(seen, each, may_act).view() for each in opened]
    status, tone = (runs[0].headline, runs[0].tone) if runs else _idle(seen)
    return View(
        rebuild=seen.spec.rebuild,
        status=status,
        tone=tone,
        at=moment(seen.at, seen.spec.zone),
        runs=runs,
        gauges=_gauges(seen),
        gate=_gate(seen, opened),
        tables=_tables(seen),
        charts=_charts(seen.past),
        past=[_past(seen, each) for each in seen.past if only in ("", each.run_id)],
        one=bool(only),
        again_in=2.0 if runs else 10.0,
    )


def needs_eyes(run: RunSeen, airflow: InAirflow | None) -> bool:
    """Whether a run goes on, or keeps others from rebuilding its tables."""
    return bool(run.holds) or (airflow is not None and airflow.state in ("running", "queued"))


def _idle(seen: Seen) -> tuple[str, Tone]:
    if not seen.past:
        return "never rebuilt yet", Tone.IDLE
    last = seen.past[0]
    at = max(last.moved.values(), default=last.started_at)
    return f"idle; the last run was {_past_state(seen, last)} {away(at, seen.at)}", Tone.IDLE


# Runs that go on ---------------------------------------------------------------------------------------------------


class _Running:
    def __init__(self, seen: Seen, run: RunSeen, may_act: Callable[[str], bool]) -> None:
        self._seen = seen
        self._run = run
        self._report = run.report
        self._airflow = seen.airflow.get(run.report.run_id)
        self._dag_id, _, self._dag_run_id = run.report.run_id.partition("/")
        self._may_act = self._airflow is not None and may_act(self._dag_id)

    def view(self) -> RunView:
        steps = self._steps()
        headline, tone = self._headline(steps)
        return RunView(
            key=self._report.run_id,
            dag_id=self._dag_id,
            dag_run_id=self._dag_run_id,
            title=_title(self._report),
            headline=headline,
            tone=tone,
            since=f"since {moment(self._report.started_at, self._seen.spec.zone)} ({away(self._report.started_at, self._seen.at)})",
            facts=_facts(self._seen, self._report),
            href=self._link(links.run) if self._airflow else "",
            steps=steps,
            replays=[self._replay(each) for each in self._run.progress],
            aside=[_aside(each) for each in self._run.dead_letters[:ASIDE]],
            more_aside=max(0, len(self._run.dead_letters) - ASIDE),
            verification=verification_view(self._report.verification),
            answer_href=self._answer(),
            actions=self._actions(),
        )

    def _link(self, to: Callable[..., str], *more: str) -> str:
        return to(self._dag_id, self._dag_run_id, *more)

    def _steps(self) -> list[Step]:
        """By what Airflow says of its tasks; a run from a REPL has none."""
        if self._airflow is None:
            return []
        states: dict[str, list[str]] = {}
        for task_id, state in self._airflow.tasks.items():
            states.setdefault(task_id.partition(".")[0], []).append(state)
        return [self._step(task_id, name, states[task_id]) for task_id, name in STEPS.items() if task_id in states]

    def _step(self, task_id: str, name: str, states: list[str]) -> Step:
        state = next((each for each in WEIGHT if each in states), "success" if "success" in states else states[0])
        href = self._link(links.run) if task_id == "replay" else self._link(links.task, task_id)
        return Step(name, state.replace("_", " ") or "not yet", TONES.get(state, Tone.IDLE), href)

    def _headline(self, steps: list[Step]) -> tuple[str, Tone]:
        paused = next((each for each in self._report.notes if each.name == PAUSE), None)
        if paused is not None:
            return f"paused by {paused.by}", Tone.WAIT
        for tone, words in ((Tone.BAD, "failed at"), (Tone.BUSY, "at work on"), (Tone.WAIT, "")):
            for step in steps:
                if step.tone is tone:
                    return f"{words} {step.name}" if words else self._waiting(step), tone
        if self._airflow is not None and self._airflow.state == "failed":
            return "failed", Tone.BAD
        return f"{self._report.state}", Tone.BUSY

    def _waiting(self, step: Step) -> str:
        if step.state in ("deferred", "awaiting input"):
            return {"approve": "waits for approval", "wait for low traffic": "waits for low traffic"}.get(
                step.name, f"waits: {step.name}"
            )
        if step.state == "up for retry":
            return f"{step.name} failed and is tried again soon"
        return f"{step.name} is about to begin"

    def _replay(self, progress: Progress) -> ReplayView:
        begun = progress.position is not None
        share = share_done(self._seen.look.first, progress.position, progress.head) if begun else 0.0
        done = begun and not is_before(progress.position, progress.head)
        rate = progress.events / progress.seconds if progress.seconds else 0.0
        total = f" of about {count(progress.events / share)}" if share and not done else ""
        left = timedelta(seconds=progress.seconds * (1 - share) / share) if share else None
        return ReplayView(
            projector=f"{progress.projector}, shard {progress.shard}" if progress.shard else progress.projector,
            share=round(share, 4),
            tone=Tone.OK if done else Tone.BUSY if begun else Tone.IDLE,
            events=f"{count(progress.events)}{total} events" if begun else "not begun",
            rate=f"{count(rate)} events/s" if rate else "",
            left="replayed" if done else f"{span(left)} left" if left else "",
            rests=self._rests(progress),
            lag=_lag(progress.position, self._seen.look.traffic.head),
            href=self._replay_task(progress),
        )

    def _answer(self) -> str:
        if self._airflow is None or self._airflow.tasks.get("approve_swap") not in ("awaiting_input", "deferred"):
            return ""
        return f"{self._link(links.task, 'approve_swap')}/required_actions"

    def _actions(self) -> list[Action]:
        """What the reader may do; whoever may only look is offered nothing."""
        state = RunState(self._report.state)
        if not self._may_act or state.has_begun_switch or state.is_over:
            return []
        said = {each.name for each in self._report.notes}
        offered = [] if SWAP_NOW in said else [SWITCH_NOW]
        if PAUSE in said:
            offered.append(RESUME_REPLAYS)
        elif not state.is_verified:
            offered.append(PAUSE_REPLAYS)
        # Airflow asks about the first verification only; about a later one it is answered here.
        if state.is_verified and self._airflow is not None and self._airflow.tasks.get("approve_swap") == "failed":
            offered += [APPROVE, REJECT]
        return offered

    def _replay_task(self, progress: Progress) -> str:
        """The task of a replay; shards are the parts of one mapped task, and a rollback has none of these."""
        if self._airflow is None or self._report.plan.rolls_back:
            return ""
        if progress.shard:
            return f"{self._link(links.task, 'replay.shards')}/mapped"
        return self._link(links.task, f"replay.{progress.projector}")

    def _rests(self, progress: Progress) -> str:
        """Why a replay stands still."""
        worker = f"{progress.projector}{SHARD}{progress.shard - 1}" if progress.shard else progress.projector
        wait = next((each for each in self._run.waits if each.worker == worker), None)
        return f"rests for {span(self._seen.at - wait.since)}: {wait.why}" if wait else ""


ASIDE = 20
"""So many events that were set aside are shown."""


def _aside(letter: DeadLetter) -> str:
    return f"{letter.event_type} at position {count(letter.position)}, {letter.projector}: {letter.error}"


def _title(report: Report) -> str:
    return f"Rollback of {_short(report.plan.rolls_back)}" if report.plan.rolls_back else "Rebuild"


def _short(run_id: str | None) -> str:
    return (run_id or "").partition("/")[2] or run_id or ""


def _facts(seen: Seen, report: Report) -> list[str]:
    """Who does what, and why."""
    facts = [", ".join(report.plan.projectors)]
    if report.by:
        facts.append(f"Started by {report.by}")
    if report.reason:
        facts.append(f"Why: {report.reason}")
    return facts + [_said(seen, each) for each in report.notes if each.by]


def _outcome(report: Report) -> list[str]:
    """What has come of it."""
    facts = []
    if report.swap and RunState.SWITCHED in report.moved:
        facts.append(f"Switch: {report.swap.describe()}")
    if report.reconciliation:
        facts.append(f"After the switch: {report.reconciliation.describe()}")
    if report.durations:
        facts.append("Took: " + ", ".join(f"{name} {span(took)}" for name, took in report.durations.items()))
    if report.code:
        facts.append(
            "Code: " + ", ".join(f"{each.projector} {each.version} {each.source}".replace("  ", " ") for each in report.code)
        )
    return facts


def _said(seen: Seen, said: Said) -> str:
    """What a person decided."""
    what = said.name.replace("_", " ")
    if "approved" in said.value:
        what = "approved" if said.value["approved"] else "rejected"
    why = f": {said.value['reason']}" if said.value.get("reason") else ""
    return f"{what.capitalize()} by {said.by}, {moment(said.at, seen.spec.zone)}{why}"


# Verification ------------------------------------------------------------------------------------------------------

DIFFERENCES = {"differing": "differ", "only_blue": "only before", "only_green": "only after"}


def verification_view(found: Verification | None) -> VerificationView | None:
    """What a verification found, in words."""
    if found is None:
        return None
    return VerificationView(found.passed, found.failures, [_comparison(each) for each in found.tables])


def _comparison(found: TableComparison) -> ComparisonView:
    return ComparisonView(
        table=found.table,
        before=count(found.blue_rows),
        after=count(found.green_rows),
        drift=f"{found.drift_percent:.2f} %",
        allowed=f"{found.tolerance_percent:g} %",
        too_far=found.drift_percent > found.tolerance_percent or bool(found.blue_rows and not found.green_rows),
        identical=count(found.identical),
        differing=count(found.differing),
        only_before=count(found.only_blue),
        only_after=count(found.only_green),
        samples={DIFFERENCES[what]: keys for what, keys in found.samples.items()},
    )


def _lag(reached: Place, head: Place) -> str:
    if reached is None or head is None:
        return "" if head is None else "at the beginning"
    return f"{count(max(0, head - reached))} positions behind the head"


# Traffic -----------------------------------------------------------------------------------------------------------


def _gauges(seen: Seen) -> list[Gauge]:
    latest, earlier = seen.look.traffic, seen.earlier
    found = [_window(seen), *map(_limited, measured(seen.spec.low_traffic, latest, earlier))]
    if seen.spec.low_traffic.max_appends_per_minute is None:
        rate = appends_per_minute(latest, earlier)
        if rate is not None:
            found.append(Gauge("appends", f"{count(rate)} per minute", "no limit", None, Tone.IDLE))
    return found


def _limited(probe: Probe) -> Gauge:
    tone = Tone.OK if probe.quiet else Tone.WAIT
    unit = f" {probe.unit}" if probe.unit else ""
    limit = f"limit {count(probe.limit)}{unit}"
    if probe.value is None:
        return Gauge(probe.name, "not known here" if probe.quiet else "known at the next look", limit, None, Tone.IDLE)
    share = probe.value / probe.limit if probe.limit else float(probe.value > 0)
    return Gauge(probe.name, f"{count(probe.value)}{unit}", limit, round(min(1.0, share), 3), tone)


def _window(seen: Seen) -> Gauge:
    section, zone = seen.spec.low_traffic, seen.spec.window_zone
    if section.any_time:
        return Gauge("window", "at any time", "no limit", None, Tone.IDLE)
    words = f"{section.window.start:%H:%M} to {section.window.end:%H:%M}, {zone.key}" if section.window else zone.key
    opens = next_opening(section, zone, seen.at)
    if opens > seen.at:
        return Gauge("window", f"opens {moment(opens, zone)}, {away(opens, seen.at)}", words, None, Tone.WAIT)
    closes = closing(section, zone, seen.at)
    return Gauge(
        "window", f"open; closes {moment(closes, zone)}, {away(closes, seen.at)}" if closes else "open", words, None, Tone.OK
    )


def _gate(seen: Seen, opened: Sequence[RunSeen]) -> str:
    """What the gate of a run saw at its last look, while the switch waits for it."""
    for run in opened:
        for said in run.report.notes:
            if said.name == TRAFFIC and run.report.state == RunState.VERIFIED and "message" in said.value:
                return f"The gate, {away(said.at, seen.at)}: {said.value['message']}"
    return ""


# Tables ------------------------------------------------------------------------------------------------------------


def _tables(seen: Seen) -> list[TableView]:
    largest = max((each.size for each in seen.tables), default=0)
    return [_table(seen, each, largest) for each in seen.tables]


def _table(seen: Seen, table: TableSeen, largest: int) -> TableView:
    note = ""
    if table.role == "green":
        note = f"made by {_short(table.run_id)}" if table.run_id else "not ours; a rebuild is refused while it is there"
    elif table.role == "old":
        note = _dropped_when(seen, table)
    dag_id, separator, run_id = (table.run_id or "").partition("/")
    return TableView(
        table=table.table,
        name=table.name,
        role=table.role,
        rows=count(table.rows),
        size=size(table.size),
        share=round(table.size / largest, 4) if largest else 0.0,
        note=note,
        href=links.run(dag_id, run_id) if separator else "",
    )


def _dropped_when(seen: Seen, table: TableSeen) -> str:
    if table.drop_after is None:
        return "not ours; the next switch needs its name"
    if table.drop_after <= seen.at:
        return f"due to be dropped; retired by {_short(table.run_id)}"
    return f"dropped {moment(table.drop_after, seen.spec.zone)}, {away(table.drop_after, seen.at)}; retired by {_short(table.run_id)}"


# History -----------------------------------------------------------------------------------------------------------


def _duration(report: Report) -> float | None:
    """Seconds from the plan to the switch."""
    switched = report.moved.get(RunState.SWITCHED)
    return (switched - report.started_at).total_seconds() if switched else None


def _pause(report: Report) -> float | None:
    return report.swap.pause_seconds if report.swap and RunState.SWITCHED in report.moved else None


def _rate(report: Report) -> float | None:
    """Events per second of all replays together, as if one came after the other."""
    seconds = sum(each.seconds for each in report.replays)
    return sum(each.events for each in report.replays) / seconds if seconds else None


def _seconds(value: float) -> str:
    return span(timedelta(seconds=value))


def _charts(past: Sequence[Report]) -> list[Chart]:
    return [
        _chart("until the switch", past, _duration, _seconds),
        _chart("pause of writers", past, _pause, _seconds),
        _chart("events per second", past, _rate, count),
    ]


def _chart(label: str, past: Sequence[Report], measure: Callable[[Report], float | None], words: Callable[[float], str]) -> Chart:
    values = [
        Value(
            value,
            f"{words(value)}: {_short(report.run_id)}" if value is not None else "",
            "back" if report.plan.rolls_back else "",
        )
        for report in reversed(past)
        for value in [measure(report)]
    ]
    latest = next((each.value for each in reversed(values) if each.value is not None), None)
    return chart(label, values, words(latest) if latest is not None else "nothing yet")


PAST = {RunState.FINISHED: Tone.OK, RunState.RECONCILED: Tone.OK, RunState.ABANDONED: Tone.IDLE}


def _past(seen: Seen, report: Report) -> PastView:
    dag_id, separator, run_id = report.run_id.partition("/")
    duration, pause, rate = _duration(report), _pause(report), _rate(report)
    return PastView(
        key=report.run_id,
        title=_title(report),
        started=moment(report.started_at, seen.spec.zone),
        state=_past_state(seen, report),
        tone=PAST.get(RunState(report.state), Tone.BUSY),
        reason=report.reason,
        by=report.by,
        projectors=f"{len(report.plan.projectors)} of {len(seen.spec.projectors)}",
        duration=_seconds(duration) if duration is not None else "",
        pause=_seconds(pause) if pause is not None else "",
        rate=f"{count(rate)}/s" if rate else "",
        href=links.run(dag_id, run_id) if separator else "",
        report=links.report(dag_id, run_id) if separator else "",
        facts=[*_facts(seen, report), *_outcome(report)],
        verification=verification_view(report.verification),
    )


def _past_state(seen: Seen, report: Report) -> str:
    words = {RunState.RECONCILED: "switched", RunState.ABANDONED: "given up"}
    state = words.get(RunState(report.state), report.state)
    back = next((each for each in seen.past if each.plan.rolls_back == report.run_id and RunState.SWITCHED in each.moved), None)
    return f"{state}, taken back by {_short(back.run_id)}" if back else state
