"""When something may happen: windows, ``stages`` and ``low_traffic``."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from projection_rebuild.spec.fields import WEEKDAYS, ClockTime, Duration, Section, Weekday, Whole, ZoneName


class Window(Section):
    """A stretch of the day, across midnight where its end is not after its start.

    :param start: wall-clock time
    :param end: wall-clock time, not in the window itself
    """

    start: ClockTime
    end: ClockTime

    def contains(self, moment: time) -> bool:
        """Whether a wall-clock time lies in the window (its end excluded)."""
        if self.start < self.end:
            return self.start <= moment < self.end
        return moment >= self.start or moment < self.end


def _parse_window(value: object) -> object:
    if isinstance(value, str):
        start, separator, end = value.partition("-")
        if not separator:
            raise ValueError('write a window as "01:00-05:00"')
        return {"start": start.strip(), "end": end.strip()}
    return value


WindowText = Annotated[Window | None, BeforeValidator(_parse_window)]


GiveUp = Literal["fail", "swap", "skip"]


class Windows(Section):
    """When something may happen.

    :param window: wall-clock times such as ``"01:00-05:00"``, across midnight where the end is not after the start; null: at any time
    :param days: the weekdays on which the window opens
    :param windows: windows of their own for each weekday, instead of ``window`` and ``days``
    """

    window: WindowText = None
    days: tuple[Weekday, ...] = WEEKDAYS
    windows: dict[Weekday, tuple[Annotated[Window, BeforeValidator(_parse_window)], ...]] = {}

    @model_validator(mode="after")
    def _opens(self) -> Self:
        if self.windows and (self.window or self.days != WEEKDAYS):
            raise ValueError("`windows` has the windows of each weekday; leave out `window` and `days`")
        if (self.windows and not any(self.windows.values())) or not (self.windows or self.days):
            raise ValueError("no window ever opens; name at least one, or leave out all of them")
        return self

    def windows_on(self, day: Weekday) -> tuple[Window, ...]:
        """The windows that open on a weekday."""
        if self.windows:
            return self.windows.get(day, ())
        return (self.window,) if self.window and day in self.days else ()

    @property
    def any_time(self) -> bool:
        """Whether there is no window to wait for."""
        return self.window is None and not self.windows


class StageSection(Windows):
    """A wave of a rebuild that takes several nights; it begins when the one before it is done, and works in its windows only.

    :param name: for log and graph
    :param projectors: the class names of those that are replayed in it
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")
    projectors: tuple[str, ...] = Field(min_length=1)


class LowTrafficSection(Windows):
    """When the swap may happen. A limit that is null is not looked at.

    :param timezone: of the windows; null: the spec's
    :param quiet_for: how long everything must have been within its limits, at each look
    :param max_appends_per_minute: appends to the event store, counted between two looks
    :param max_active_sessions: sessions of the read-model database that are executing something, ours left out
    :param max_reads_per_minute: reads of the live tables by the database's own statistics, counted between two looks
    :param max_transaction_age: of the oldest query or open transaction of others that has touched the live tables
    :param max_replica_lag: how far the slowest replica of the read-model database is behind; elsewhere than on PostgreSQL,
        ``throttle.replica_lag`` tells it
    :param give_up_after: how long to wait before ``give_up`` says what happens
    :param give_up: ``fail``: the task fails. ``skip``: the run ends without a swap, as a success. ``swap``: it swaps all the same,
        at the end of an open window if that comes before
    :param warn_after: how long to wait before somebody is told
    :param look_every: the time between two looks
    """

    timezone: ZoneName | None = None
    quiet_for: Duration = timedelta(0)
    max_appends_per_minute: Whole | None = Field(default=None, ge=0)
    max_active_sessions: Whole | None = Field(default=None, ge=0)
    max_reads_per_minute: Whole | None = Field(default=None, ge=0)
    max_transaction_age: Duration | None = None
    max_replica_lag: Duration | None = None
    give_up_after: Duration = timedelta(hours=6)
    give_up: GiveUp = "fail"
    warn_after: Duration = timedelta(hours=2)
    look_every: Duration = timedelta(seconds=30)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.look_every < timedelta(seconds=1):
            raise ValueError("`look_every` is at least 1s")
        return self
