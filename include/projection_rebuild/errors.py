"""The errors of the rebuild engine: one small family, each saying what happened, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from gzip import BadGzipFile
from io import UnsupportedOperation

MACHINE = (OSError, MemoryError, RecursionError, ImportError, SystemError)
"""What code of an author's raises when its machine, and not its event, is at fault. A lost connection is an OSError, too."""


OF_THE_DATA = (BadGzipFile, UnsupportedOperation)
"""Of these, what speaks about the bytes that were read all the same."""


def is_of_the_machine(error: BaseException) -> bool:
    """Whether an error says something about the machine, so that a retry there or elsewhere can help."""
    return isinstance(error, MACHINE) and not isinstance(error, OF_THE_DATA)


class RebuildError(Exception):
    """Root of everything that the engine raises on purpose.

    ``retryable`` tells a scheduler whether running the same step again, with nothing changed by a person, can help.
    """

    retryable = False


class ConnectionRefused(RebuildError):
    """A database cannot be worked with over the connection that is configured; nothing has been set or written there.

    The message names the connection, the reason and the remedy. It holds no address, no account and no password.

    :param retryable: whether the same connection may work later: the server is away, or has no connection to spare
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        self.retryable = retryable
        super().__init__(message)


class SpecError(RebuildError):
    """A spec file, or the choices of one run, cannot be used; names the file, the key and the remedy."""


class ProjectorError(RebuildError):
    """A projector is declared in a way that cannot work; names the class and the remedy."""


class SessionError(RebuildError):
    """A session of the application's in which its projectors would write other rows than a rebuild; names setting and remedy."""


class PoisonEvent(RebuildError):
    """An event that cannot be projected; names its type and position, never its payload.

    :param cause: the kind of the error behind it, without its text
    """

    def __init__(self, message: str, *, event_type: str, position: int, cause: str) -> None:
        self.event_type = event_type
        self.position = position
        self.cause = cause
        super().__init__(message)


class HandlerError(PoisonEvent):
    """A handler failed on an event."""

    def __init__(self, projector: str, event_type: str, position: int, cause: BaseException) -> None:
        super().__init__(
            f"{projector} failed on the event {event_type} at position {position}: {type(cause).__name__}. "
            "Correct the handler (or the event) and retry the task: it goes on from its checkpoint.",
            event_type=event_type,
            position=position,
            cause=type(cause).__name__,
        )


class UndecodableEvent(PoisonEvent):
    """What the store holds for an event cannot be decoded."""

    def __init__(self, event_type: str, position: int, cause: str) -> None:
        super().__init__(
            f"the event {event_type} at position {position} cannot be decoded: {cause}. Correct what decodes it (or the event) and retry",
            event_type=event_type,
            position=position,
            cause=cause,
        )


class UpcastError(PoisonEvent):
    """An event is of a version that nobody knows, or its upcaster failed."""


class TooManyDeadLetters(PoisonEvent):
    """More events cannot be projected than the spec allows to set aside."""


class ShardError(RebuildError):
    """Shards of a projector are not as separate as it is declared; names projector and table."""


class RowError(RebuildError):
    """A handler asked something impossible of a row: a missing one, or one that is there already."""


class PartError(RebuildError):
    """A handler's rows and its events do not belong together as its projector's `part` declares; names the table."""


class PlanError(RebuildError):
    """The rebuild cannot be planned as asked; nothing has been touched."""


class ClaimRefused(RebuildError):
    """Another run works on one of the tables; names that run."""


class CloneError(RebuildError):
    """A green table cannot be made like its blue one; names table, object and remedy."""


def changed_since(blue: str, green: str, changed: Iterable[str]) -> CloneError:
    """The refusal of a switch that would take back what has been done to a live table.

    :param changed: what has been changed, by kind and name
    """
    return CloneError(
        f"{blue} has been changed since {green} was made like it, and a switch would take that back: {', '.join(changed)}. "
        f"Run clone_tables and what follows it again, or change {green} in the same way"
    )


class VerificationFailed(RebuildError):
    """Green does not pass; the message lists every finding. Blue is untouched."""


class ProgramFailed(RebuildError):
    """A projector that is a program did not do what it was asked for; says what it is known by, never what it has said."""

    retryable = True


class StepOrderError(RebuildError):
    """A step was called while its run is not in a state for it; names the state and the step that is missing."""


class Interrupted(RebuildError):
    """The step was asked to stop; what it had committed stays, and a retry goes on from there."""

    retryable = True


class FencedOut(RebuildError):
    """Another worker moved this checkpoint or took over this claim; this worker has written nothing more."""


class SettleTimeout(RebuildError):
    """Appends in flight did not end in time, so the head of the event store is not known; try again."""

    retryable = True


class PositionError(RebuildError):
    """The event store holds a position that the ledger cannot keep; names it."""


class FallingBehind(RebuildError):
    """Events are appended faster than they are replayed; what is done is kept, and a quieter hour can help."""

    retryable = True


class FenceLost(RebuildError):
    """The connection that held appends back died within the switch; says which events are in doubt and what to do."""


class HeldByRollback(RebuildError):
    """A rollback is at work on the retired tables; names it. They can be dropped when it is over."""

    retryable = True


class SwapNotPossible(RebuildError):
    """The switch did not succeed within its attempts or its longest pause; everything was put back."""

    retryable = True
