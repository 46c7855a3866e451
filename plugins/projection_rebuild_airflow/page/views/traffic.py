"""The application's traffic against the limits of the spec, and the gate's last message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from projection_rebuild.api import TRAFFIC, Probe, RunSeen, RunState, appends_per_minute, closing, measured, next_opening
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.views.tones import Tone
from projection_rebuild_airflow.page.words import away, count, moment

NO_LIMIT = "no limit"


@dataclass(frozen=True)
class Gauge:
    """One measure of the traffic against its limit.

    :param share: the share of the limit that is used, from 0 to 1; None: no limit, or no value
    """

    label: str
    value: str
    limit: str
    share: float | None
    tone: Tone


def gauges(seen: Seen) -> list[Gauge]:
    """The low-traffic window, each measure that the spec limits, and the appends even without a limit."""
    limits, latest, earlier = seen.spec.low_traffic, seen.look.traffic, seen.earlier
    views = [_window_gauge(seen), *(_limited_gauge(probe) for probe in measured(limits, latest, earlier))]
    if limits.max_appends_per_minute is None:
        rate = appends_per_minute(latest, earlier)
        if rate is not None:
            views.append(Gauge("appends", f"{count(rate)} per minute", NO_LIMIT, None, Tone.IDLE))
    return views


def _limited_gauge(probe: Probe) -> Gauge:
    unit = f" {probe.unit}" if probe.unit else ""
    limit = f"limit {count(probe.limit)}{unit}"
    if probe.value is None:
        return Gauge(probe.name, "not known here" if probe.quiet else "known at the next look", limit, None, Tone.IDLE)
    share = probe.value / probe.limit if probe.limit else float(probe.value > 0)
    tone = Tone.OK if probe.quiet else Tone.WAIT
    return Gauge(probe.name, f"{count(probe.value)}{unit}", limit, round(min(1.0, share), 3), tone)


def _window_gauge(seen: Seen) -> Gauge:
    limits, zone = seen.spec.low_traffic, seen.spec.window_zone
    if limits.any_time:
        return Gauge("window", "at any time", NO_LIMIT, None, Tone.IDLE)
    window = f"{limits.window.start:%H:%M} to {limits.window.end:%H:%M}, {zone.key}" if limits.window else zone.key
    opens = next_opening(limits, zone, seen.at)
    if opens > seen.at:
        return Gauge("window", f"opens {moment(opens, zone)}, {away(opens, seen.at)}", window, None, Tone.WAIT)
    closes = closing(limits, zone, seen.at)
    value = f"open; closes {moment(closes, zone)}, {away(closes, seen.at)}" if closes else "open"
    return Gauge("window", value, window, None, Tone.OK)


def gate_message(seen: Seen, runs: Sequence[RunSeen]) -> str:
    """The message of the gate's last look, while a swap waits for it; empty: no swap waits."""
    for run in runs:
        for signal in run.report.notes:
            if signal.name == TRAFFIC and run.report.state == RunState.VERIFIED and "message" in signal.value:
                return f"The gate, {away(signal.at, seen.at)}: {signal.value['message']}"
    return ""
