"""The errors of the rebuild engine: one small family, each saying what happened, where, and what to do."""

from __future__ import annotations


class RebuildError(Exception):
    """Root of everything that the engine raises on purpose.

    ``retryable`` tells a scheduler whether running the same step again, with nothing changed by a person, can help.
    """

    retryable = False


class SpecError(RebuildError):
    """A spec file, or the choices of one run, cannot be used; names the file, the key and the remedy."""


class ProjectorError(RebuildError):
    """A projector is declared in a way that cannot work; names the class and the remedy."""


class HandlerError(RebuildError):
    """A handler failed on an event; names projector, type and position, never the payload."""

    def __init__(self, projector: str, event_type: str, position: int, cause: BaseException) -> None:
        self.projector = projector
        self.event_type = event_type
        self.position = position
        super().__init__(
            f"{projector} failed on the event {event_type} at position {position}: {type(cause).__name__}. "
            "Correct the handler (or the event) and retry the task: it goes on from its checkpoint."
        )


class RowError(RebuildError):
    """A handler asked something impossible of a row: a missing one, or one that is there already."""


class PlanError(RebuildError):
    """The rebuild cannot be planned as asked; nothing has been touched."""


class ClaimRefused(RebuildError):
    """Another run works on one of the tables; names that run."""


class EventStoreError(RebuildError):
    """The event store cannot be read as configured; names table, column or position."""


class CloneError(RebuildError):
    """A green table cannot be made like its blue one; names table, object and remedy."""


class VerificationFailed(RebuildError):
    """Green does not pass; the message lists every finding. Blue is untouched."""


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


class SwapNotPossible(RebuildError):
    """The switch did not succeed within its attempts or its longest pause; everything was put back."""

    retryable = True
