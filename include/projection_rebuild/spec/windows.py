"""Time windows, and the sections that have them: ``stages`` and ``low_traffic``."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from projection_rebuild.spec.fields import WEEKDAYS, ClockTime, Duration, Section, Weekday, Whole, ZoneName


class Window(Section):
    """A window of the day; it crosses midnight if its end is not after its start.

    :param start: wall-clock time, included
    :param end: wall-clock time, excluded
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
    """The windows in which the engine may work.

    :param window: wall-clock times such as ``"01:00-05:00"``; crosses midnight if the end is not after the start; null:
        at any time
    :param days: the weekdays on which the window opens
    :param windows: separate windows for each weekday, instead of ``window`` and ``days``
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
        """Whether no windows are set, so that the engine need not wait."""
        return self.window is None and not self.windows


class StageSection(Windows):
    """A stage of a rebuild over several nights. It begins after the stage before it, and only works in its windows.

    :param name: its name in logs and in the graph
    :param projectors: the class names of the projectors to replay in it
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,60}$")
    projectors: tuple[str, ...] = Field(min_length=1)


class LowTrafficSection(Windows):
    """When the swap may happen. The engine does not check a limit that is null.

    :param timezone: the time zone of the windows; null: the spec's
    :param quiet_for: how long all values must have been within their limits, at each check
    :param max_appends_per_minute: the most appends to the event store, counted between two checks
    :param max_active_sessions: the most sessions of the read models' database that execute a statement, without the
        engine's own
    :param max_reads_per_minute: the most reads of the live tables, by the database's statistics between two checks
    :param max_transaction_age: the longest age of a query or open transaction of others that has used the live tables
    :param max_replica_lag: the longest lag of a replica of the read models' database; on other databases than
        PostgreSQL this needs ``throttle.replica_lag``
    :param give_up_after: how long to wait before ``give_up`` applies
    :param give_up: ``fail``: the task fails. ``skip``: the run ends without a swap, as a success. ``swap``: the run
        swaps nevertheless, at the end of an open window if that comes first
    :param warn_after: how long to wait before the engine calls the notifiers of ``waiting_too_long``
    :param look_every: the time between two checks
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
