"""The part of a partial rebuild: the column by which a projector's rows divide, and the selection of a run.

Pure: imports the errors, events and rows alone. :mod:`projection_rebuild.replay.partial` replays a part.
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
    """Each row belongs to one aggregate: only its events change the row, and their handlers read no rows of others.

    .. code-block:: python

        part = ByAggregate({Subscription: "id"})
        part = ByAggregate({Expense: "user_id"}, of=lambda event: event["user_id"])

    :param rows: for each owned row class the attribute with the row's aggregate; a ``str``, ``int``, ``date`` or
        ``UUID``
    :param of: computes the value of that attribute from an event; None: the value is the event's stream
    """

    rows: Mapping[type, str]
    of: Callable[[Event], object] | None = None

    def key(self, event: Event) -> str:
        """The aggregate that an event belongs to, as text.

        :raises PartError: streams name the aggregates, and the event has no stream
        """
        if self.of is not None:
            return str(self.of(event))
        if event.stream is None:
            raise without_stream(f"the event {event.type} at position {event.position:,}")
        return event.stream


@dataclass(frozen=True)
class ByPeriod:
    """Each row belongs to one period: only its events change the row, and their handlers read no rows of others.

    .. code-block:: python

        part = ByPeriod({MonthlySummary: "month"}, of=lambda event: event["spent_on"][:7], at=lambda moment:
        f"{moment:%Y-%m}")

    :param rows: for each owned row class the attribute with the row's period
    :param of: computes from an event the value of that attribute; as text, periods must sort by time
    :param at: computes the period of a moment, which is in the spec's time zone
    """

    rows: Mapping[type, str]
    of: Callable[[Event], object]
    at: Callable[[datetime], object]

    def key(self, event: Event) -> str:
        """The period that an event is about, as text."""
        return str(self.of(event))


class Selection(BaseModel):
    """The selection of a run: which events decide the part. It selects by recorded time, by aggregate, or by both.

    :param since: events recorded from this time on, an aware time; None: from the first event
    :param until: events recorded before this time; None: up to the last event
    :param aggregates: events of these streams; None: of all streams
    """

    since: datetime | None = None
    until: datetime | None = None
    aggregates: list[str] | None = None

    def describe(self) -> str:
        """The selection for logs, such as ``since 2026-01-01 00:00 +0000, 3 aggregates``."""
        words = [
            f"{word} {moment:%Y-%m-%d %H:%M %z}" for word, moment in (("since", self.since), ("until", self.until)) if moment
        ]
        if self.aggregates is not None:
            examples = ", ".join(self.aggregates[:3]) + (", ..." if len(self.aggregates) > 3 else "")
            words.append(f"{len(self.aggregates):,} aggregate{'s' if len(self.aggregates) != 1 else ''} ({examples})")
        return ", ".join(words)


@dataclass(frozen=True)
class SelectedKeys:
    """The aggregates or periods of one projector's part: the run replays their rows, and copies all others.

    :param listed: single aggregates or periods
    :param first: all periods from this one on; None: no lower bound. If ``last`` is None as well, ``listed`` alone
        counts
    :param last: all periods up to this one; None: no upper bound
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
    """The error for an event without a stream, which could change any row.

    :param what: the event, as the subject of the message
    """
    return PartError(
        f"{what} has no stream, but streams select the rows of a part of this projector, so the event could change any row. The "
        "live tables are untouched: rebuild the projector as a whole"
    )


class SelectionGuard:
    """Guards rows during the replay of a part: a handler may only touch rows of its event's own aggregate or period.

    Other rows are copies from blue: they do not have the values of the event's time, and already include its changes.

    :param rows: the guarded rows
    :param attributes: by owned row class, the attribute with the row's aggregate or period
    :param key: the aggregate or period of the event
    """

    def __init__(self, rows: Rows, attributes: Mapping[type, str], key: str) -> None:
        self._rows = rows
        self._attributes = attributes
        self._key = key

    def add(self, row: object) -> None:
        """See :class:`~projection_rebuild.rows.types.Rows`, as for the other methods."""
        self._rows.add(self._own(row))

    def get(self, row_class: type[R], *key: Any) -> R:
        return self._own(self._rows.get(row_class, *key))

    def find(self, row_class: type[R], *key: Any) -> R | None:
        row = self._rows.find(row_class, *key)
        return None if row is None else self._own(row)

    def get_or_add(self, row_class: type[R], *key: Any, **defaults: Any) -> R:
        return self._own(self._rows.get_or_add(row_class, *key, **defaults))

    def remove(self, row_class: type, *key: Any) -> None:
        if self.find(row_class, *key) is not None:
            self._rows.remove(row_class, *key)

    def where(self, row_class: type[R], **column: Any) -> list[R]:
        return [self._own(row) for row in self._rows.where(row_class, **column)]

    def _own(self, row: R) -> R:
        attribute = self._attributes.get(type(row))
        if attribute is not None and str(getattr(row, attribute)) != self._key:
            table = row_type(type(row)).table
            raise PartError(
                f"a handler came to a row of {table} that belongs to another part than its event, by its {attribute}. Rows of this "
                "projector cannot be rebuilt in parts as `part` declares them: correct `part`, or rebuild it as a whole"
            )
        return row
