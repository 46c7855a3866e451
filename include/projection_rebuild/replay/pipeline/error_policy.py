"""Decides whether a poison event ends the replay or becomes a dead letter. The start of a replay chooses the policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from projection_rebuild.authoring.events import Event
from projection_rebuild.errors import PoisonEvent, RowError, TooManyDeadLetters
from projection_rebuild.ledger import DeadLetter
from projection_rebuild.model.positions import Place, is_before
from projection_rebuild.replay.pipeline.fold import Fold
from projection_rebuild.replay.row_tables import WriteError

Write = Callable[[int, Place], None]
"""Commits folded events: their number, and the place up to which they go."""

KEPT_EVENTS = 10_000
"""The most events per transaction if each may become a dead letter: they stay in memory until the commit."""


class ErrorPolicy(ABC):
    """Folds and writes the events of one projector, and handles those that cannot be projected.

    :param recorded: its dead letters in the ledger; an earlier attempt may have had another policy
    """

    def __init__(self, fold: Fold, recorded: Iterable[DeadLetter]) -> None:
        self._fold = fold
        self._recorded = {letter.position: letter for letter in recorded}

    @property
    def recorded(self) -> list[DeadLetter]:
        """The dead letters that are in the ledger, by position."""
        return [*self._recorded.values()]

    @property
    def count(self) -> int:
        """The number of dead letters up to the checkpoint and among the events folded since."""
        return len(self._recorded)

    @abstractmethod
    def apply(self, events: Sequence[Event]) -> None:
        """Folds events.

        :raises PoisonEvent: the replay ends at an event that cannot be projected; the rows in memory are unusable
        """

    @abstractmethod
    def write(self, events: int, reached: Place, write: Write) -> None:
        """Commits the folded events.

        :param events: their number
        :param reached: the place up to which they go
        :param write: commits events
        :raises WriteError: the database refuses rows, and the replay ends
        :raises RowError: handlers have created rows that cannot be written, and the replay ends
        """

    def dead_letters(self, reached: Place) -> list[DeadLetter]:
        """The dead letters up to a place that are not in the ledger yet."""
        return []

    @abstractmethod
    def committed(self, reached: Place) -> None:
        """Takes note that the folded events up to a place are committed."""

    @abstractmethod
    def begin(self) -> None:
        """Takes note that the fold begins again at the checkpoint."""

    def forget(self) -> None:
        """Undoes the uncommitted changes of the folded events."""
        self._fold.undo()

    def retried(self, letter: DeadLetter) -> None:
        """Takes note that a retry has projected the event of a dead letter."""
        del self._recorded[letter.position]


class FailFast(ErrorPolicy):
    """The replay ends at the first event that cannot be projected."""

    def apply(self, events: Sequence[Event]) -> None:
        self._fold.apply(events)

    def write(self, events: int, reached: Place, write: Write) -> None:
        write(events, reached)

    # This policy keeps no event after the fold.

    def committed(self, reached: Place) -> None: ...

    def begin(self) -> None: ...


class DeadLetterPolicy(ErrorPolicy):
    """Makes a poison event a dead letter, and undoes its changes in memory.

    :param projector: its name
    :param limit: the most dead letters that the projector may have
    """

    def __init__(
        self, fold: Fold, recorded: Iterable[DeadLetter], projector: str, limit: int, log: Callable[[str], None]
    ) -> None:
        super().__init__(fold, recorded)
        self._projector = projector
        self._limit = limit
        self._log = log
        # The events folded, and the new dead letters, since the last commit.
        self._folded: list[Event] = []
        self._new: dict[int, DeadLetter] = {}

    @property
    def count(self) -> int:
        return len(self._recorded) + len(self._new)

    def apply(self, events: Sequence[Event]) -> None:
        self._folded += events
        remaining = events
        while True:
            try:
                self._fold.apply([event for event in remaining if event.position not in self._new])
            except PoisonEvent as error:
                # A failed handler leaves rows half changed, so fold all uncommitted events again, without this one.
                self._fold.undo()
                self._add_dead_letter(error.event_type, error.position, error.cause)
                remaining = self._folded
            else:
                return

    def write(self, events: int, reached: Place, write: Write) -> None:
        try:
            write(events, reached)
        except (WriteError, RowError) as error:
            self._write_in_halves(list(self._folded), error, reached, write)

    def _write_in_halves(self, events: Sequence[Event], error: WriteError | RowError, reached: Place, write: Write) -> None:
        """Finds the event whose rows the database refuses, by bisection, and makes it a dead letter."""
        self.forget()
        halves: list[tuple[Sequence[Event], Place]] = [(events, reached)]
        if len(events) > 1:
            middle = len(events) // 2
            halves = [(events[:middle], events[middle - 1].position), (events[middle:], reached)]
        else:
            self._add_dead_letter(events[0].type, events[0].position, getattr(error, "cause", type(error).__name__))
        partitions = self._fold.scope.partitions()
        for half, position in halves:
            # The events come from memory, not from a new read; a commit has cleared the partitions that were recorded.
            self._fold.scope.restore(partitions)
            self.apply(half)
            try:
                write(len(half), position)
            except (WriteError, RowError) as refused:
                self._write_in_halves(half, refused, position, write)

    def _add_dead_letter(self, event_type: str, position: int, error: str) -> None:
        if self.count >= self._limit:
            raise TooManyDeadLetters(
                f"{self._projector} cannot project more than {self._limit} events, the last one {event_type} at position {position} "
                f"({error}); they are listed in projection_rebuild_dead_letters. Correct the handlers and retry the task: it retries these "
                "events and goes on. Or raise replay.max_dead_letters",
                event_type=event_type,
                position=position,
                cause=error,
            )
        self._new[position] = DeadLetter(self._projector, position, event_type, error)
        self._log(f"{self._projector}: set aside the event {event_type} at position {position} ({error})")

    def dead_letters(self, reached: Place) -> list[DeadLetter]:
        return [letter for position, letter in self._new.items() if not is_before(reached, position)]

    def committed(self, reached: Place) -> None:
        for letter in self.dead_letters(reached):
            self._recorded[letter.position] = self._new.pop(letter.position)
        self._folded.clear()

    def begin(self) -> None:
        self._folded.clear()

    def forget(self) -> None:
        super().forget()
        self._folded.clear()
