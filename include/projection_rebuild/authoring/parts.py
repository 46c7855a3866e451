"""What a part of a rebuild is: by which of their columns a projector's rows can be told apart, and which part a run wants.

Pure: imports the errors, events and rows. What is done with it stands in :mod:`projection_rebuild.replay.partial`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from projection_rebuild.authoring.events import Event
from projection_rebuild.errors import PartError
from projection_rebuild.rows.types import Rows, row_type

R = TypeVar("R")


@dataclass(frozen=True)
class ByAggregate:
    """Every row belongs to one aggregate, and nothing but that aggregate's events changes it or is read for it.

    .. code-block:: python

        part = ByAggregate({Subscription: "id"})
        part = ByAggregate({Expense: "user_id"}, of=lambda event: event["user_id"])

    :param rows: for each owned row class the attribute that says whose row it is; a ``str``, ``int``, ``date`` or ``UUID``
    :param of: what stands in that attribute, worked out from an event; None: the event's stream
    """

    rows: Mapping[type, str]
    of: Callable[[Event], object] | None = None

    def key(self, event: Event) -> str:
        """The aggregate that an event belongs to, as text.

        :raises PartError: it is the event's stream, and the event has none
        """
        if self.of is not None:
            return str(self.of(event))
        if event.stream is None:
            raise without_stream(f"the event {event.type} at position {event.position:,}")
        return event.stream


@dataclass(frozen=True)
class ByPeriod:
    """Every row belongs to one period, and nothing but the events about that period changes it or is read for it.

    .. code-block:: python

        part = ByPeriod({MonthlySummary: "month"}, of=lambda event: event["spent_on"][:7], at=lambda moment: f"{moment:%Y-%m}")

    :param rows: for each owned row class the attribute that says which period its row is about
    :param of: the period that an event is about, as that attribute has it; as text, periods sort by time
    :param at: the period in which a moment lies; the moment is in the spec's time zone
    """

    rows: Mapping[type, str]
    of: Callable[[Event], object]
    at: Callable[[datetime], object]

    def key(self, event: Event) -> str:
        """The period that an event is about, as text."""
        return str(self.of(event))


class Selection(BaseModel):
    """The part that a run rebuilds. Events are chosen by when they were recorded, by their aggregate, or by both.

    :param since: events from here on, an aware time; None: from the first one
    :param until: events before this time; None: to the last one
    :param aggregates: events of these streams; None: of any
    """

    since: datetime | None = None
    until: datetime | None = None
    aggregates: list[str] | None = None

    def describe(self) -> str:
        """For a person, such as ``since 2026-01-01 00:00 +0000, 3 aggregates``."""
        words = [
            f"{word} {moment:%Y-%m-%d %H:%M %z}" for word, moment in (("since", self.since), ("until", self.until)) if moment
        ]
        if self.aggregates is not None:
            some = ", ".join(self.aggregates[:3]) + (", ..." if len(self.aggregates) > 3 else "")
            words.append(f"{len(self.aggregates):,} aggregate{'s' if len(self.aggregates) != 1 else ''} ({some})")
        return ", ".join(words)


@dataclass(frozen=True)
class SelectedKeys:
    """The aggregates or periods of one projector's part: their rows are replayed, all others are copied.

    :param listed: those that are known one by one
    :param first: all periods from this one on; None: no bound, unless ``last`` is None as well
    :param last: all periods up to this one
    """

    listed: Collection[str]
    first: str | None = None
    last: str | None = None

    def __contains__(self, key: object) -> bool:
        if self.first is None and self.last is None:
            return key in self.listed
        return key in self.listed or self.in_range(str(key))

    def in_range(self, key: str) -> bool:
        """Whether a period lies between the bounds."""
        return (self.first is None or self.first <= key) and (self.last is None or key <= self.last)


def without_stream(what: str = "an event") -> PartError:
    """The refusal of an event that could change any row."""
    return PartError(
        f"{what} has no stream, and a part of this projector is told by streams, so that nobody knows which rows it changes. The live "
        "tables are untouched: rebuild the projector as a whole"
    )


class SelectionGuard:
    """Rows in the hands of a handler during the replay of a part: it may touch those of its own event's part only.

    Rows of others are not what they were at the event's time, and a change to them would be applied a second time.

    :param rows: where they are
    :param attributes: by owned row class, whose row it is
    :param key: whose event it is
    """

    def __init__(self, rows: Rows, attributes: Mapping[type, str], key: str) -> None:
        self._rows = rows
        self._attributes = attributes
        self._key = key

    def add(self, row: object) -> None:
        """See :class:`~projection_rebuild.rows.types.Rows`, as for the others."""
        self._rows.add(self._own(row))

    def get(self, row_class: type[R], *key: Any) -> R:
        return self._own(self._rows.get(row_class, *key))

    def find(self, row_class: type[R], *key: Any) -> R | None:
        found = self._rows.find(row_class, *key)
        return None if found is None else self._own(found)

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        return self._own(self._rows.get_or_add(row_class, *key, **defaults))

    def remove(self, row_class: type, *key: Any) -> None:
        if self.find(row_class, *key) is not None:
            self._rows.remove(row_class, *key)

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        return [self._own(each) for each in self._rows.where(row_class, **column)]

    def _own(self, row: R) -> R:
        attribute = self._attributes.get(type(row))
        if attribute is not None and str(getattr(row, attribute)) != self._key:
            table = row_type(type(row)).table
            raise PartError(
                f"a handler came to a row of {table} that belongs to another part than its event, by its {attribute}. Rows of this "
                "projector cannot be rebuilt in parts as `part` declares them: correct `part`, or rebuild it as a whole"
            )
        return row
