"""The states that Airflow gives to tasks: the tone of each, and their order of urgency."""

from __future__ import annotations

from collections.abc import Sequence

from projection_rebuild_airflow.page.views.tones import Tone

SUCCESS = "success"
FAILED = "failed"
UP_FOR_RETRY = "up_for_retry"
DEFERRED = "deferred"
AWAITING_INPUT = "awaiting_input"

_TONES = {
    SUCCESS: Tone.OK,
    "running": Tone.BUSY,
    "restarting": Tone.BUSY,
    "queued": Tone.WAIT,
    "scheduled": Tone.WAIT,
    DEFERRED: Tone.WAIT,
    AWAITING_INPUT: Tone.WAIT,
    "up_for_reschedule": Tone.WAIT,
    UP_FOR_RETRY: Tone.WAIT,
    FAILED: Tone.BAD,
}
"""The tone of each state; all other states are idle."""

_MOST_URGENT_FIRST = [
    FAILED,
    "upstream_failed",
    UP_FOR_RETRY,
    "running",
    AWAITING_INPUT,
    DEFERRED,
    "queued",
    "scheduled",
    SUCCESS,
]


def tone_of(state: str) -> Tone:
    """The tone of a task's state."""
    return _TONES.get(state, Tone.IDLE)


def most_urgent(states: Sequence[str]) -> str:
    """The most urgent of several states; if none of them is urgent, the first one.

    :param states: at least one
    """
    return next((state for state in _MOST_URGENT_FIRST if state in states), states[0])
