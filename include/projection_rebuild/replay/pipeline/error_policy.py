"""What an event means that cannot be projected: the end of the replay, or a dead letter. Chosen when a replay starts."""

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
"""Commits so many events, which are folded, up to a place."""

KEPT_EVENTS = 10_000
"""Events per transaction where each may become a dead letter: they stay in memory until it is committed."""


class ErrorPolicy(ABC):
    """How one projector's events are folded and written.

    :param recorded: the dead letters that the ledger has of it; an earlier attempt may have had another policy
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
        """How many events below the checkpoint, and of those folded since, are dead letters."""
        return len(self._recorded)

    @abstractmethod
    def apply(self, events: Sequence[Event]) -> None:
        """Folds events.

        :raises PoisonEvent: the replay ends at an event that cannot be projected; the rows in memory are of no use any more
        """

    @abstractmethod
    def write(self, events: int, reached: Place, write: Write) -> None:
        """Commits what is folded.

        :param events: how many events that are
        :raises WriteError: the database refuses rows, and the replay ends
        :raises RowError: handlers have made rows that cannot be written, and the replay ends
        """

    def dead_letters(self, reached: Place) -> list[DeadLetter]:
        """The dead letters up to a place that are not in the ledger yet."""
        return []

    @abstractmethod
    def committed(self, reached: Place) -> None:
        """What is folded is committed up to a place."""

    @abstractmethod
    def begin(self) -> None:
        """What is folded is forgotten."""

    def forget(self) -> None:
        """Takes back what is folded."""
        self._fold.undo()

    def retried(self, letter: DeadLetter) -> None:
        """The event of a dead letter has been projected after all."""
        del self._recorded[letter.position]


class FailFast(ErrorPolicy):
    """The replay ends at the first event that cannot be projected."""

    def apply(self, events: Sequence[Event]) -> None:
        self._fold.apply(events)

    def write(self, events: int, reached: Place, write: Write) -> None:
        write(events, reached)

    # Nothing of an event is kept once it is folded.

    def committed(self, reached: Place) -> None: ...

    def begin(self) -> None: ...


class DeadLetterPolicy(ErrorPolicy):
    """An event that cannot be projected becomes a dead letter, and nothing of it stays in memory.

    :param projector: its name
    :param limit: how many dead letters there may be
    """

    def __init__(
        self, fold: Fold, recorded: Iterable[DeadLetter], projector: str, limit: int, log: Callable[[str], None]
    ) -> None:
        super().__init__(fold, recorded)
        self._projector = projector
        self._limit = limit
        self._log = log
        # What is folded, and what has become a dead letter, since the last commit.
        self._folded: list[Event] = []
        self._new: dict[int, DeadLetter] = {}

    @property
    def count(self) -> int:
        return len(self._recorded) + len(self._new)

    def apply(self, events: Sequence[Event]) -> None:
        self._folded += events
        wanted = events
        while True:
            try:
                self._fold.apply([event for event in wanted if event.position not in self._new])
            except PoisonEvent as error:
                # Handlers leave rows half-changed, so all that is not committed is folded anew, without this event.
                self._fold.undo()
                self._add_dead_letter(error.event_type, error.position, error.cause)
                wanted = self._folded
            else:
                return

    def write(self, events: int, reached: Place, write: Write) -> None:
        try:
            write(events, reached)
        except (WriteError, RowError) as error:
            self._write_in_halves(list(self._folded), error, reached, write)

    def _write_in_halves(self, events: Sequence[Event], error: WriteError | RowError, reached: Place, write: Write) -> None:
        """Finds the event whose rows are refused, by halves, and makes it a dead letter."""
        self.forget()
        halves: list[tuple[Sequence[Event], Place]] = [(events, reached)]
        if len(events) > 1:
            middle = len(events) // 2
            halves = [(events[:middle], events[middle - 1].position), (events[middle:], reached)]
        else:
            self._add_dead_letter(events[0].type, events[0].position, getattr(error, "cause", type(error).__name__))
        partitions = self._fold.scope.partitions()
        for half, position in halves:
            # They come from memory: a commit forgets what was read, and no page is read again.
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
                f"({error}); they are listed in projection_rebuild_dead_letters. Correct the handlers and retry the task: it drives them "
                "again and goes on. Or raise replay.max_dead_letters",
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
