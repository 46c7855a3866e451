"""The errors of the rebuild engine: one small family, each saying what happened, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from projection_rebuild.errors.trouble import Kind, Trouble


class RebuildError(Exception):
    """Root of everything that the engine raises on purpose. Its text ends in its code: ``... [PR-PLAN-01]``.

    Each kind of error has a class and a code of its own. A code is an anchor in ``docs/on-call/errors.md``; it never gets another meaning, and the
    code of a class that is gone is never given away again.
    """

    retryable: bool = False
    """Whether running the same step again, with nothing changed by a person, can help."""

    code: ClassVar[str] = "PR-ERROR-00"

    @property
    def message(self) -> str:
        """What is said, without the code: for a text that this one is a part of."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class ConnectionRefused(RebuildError):
    """A database cannot be worked with over the connection that is configured; nothing has been set or written there.

    The message names the connection, the reason and the remedy. It holds no address, no account and no password.

    :param retryable: whether the same connection may work later: the server is away, or has no connection to spare
    """

    code = "PR-CONNECTION-01"

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        self.retryable = retryable
        super().__init__(message)


class SpecError(RebuildError):
    """A spec file, or the choices of one run, cannot be used; names the file, the key and the remedy."""

    code = "PR-SPEC-01"


class UnsupportedDatabase(RebuildError):
    """An engine is of a database or a driver that nothing here is written for; names those that can be used."""

    code = "PR-DB-20"


class ProjectorError(RebuildError):
    """A projector is declared in a way that cannot work; names the class and the remedy."""

    code = "PR-PROJECTOR-01"


class SessionError(RebuildError):
    """A session of the application's in which its projectors would write other rows than a rebuild; names setting and remedy."""

    code = "PR-SESSION-01"


class PoisonEvent(RebuildError):
    """An event that cannot be projected; names its type and position, never its payload.

    :param cause: the kind of the error behind it, without its text
    """

    code = "PR-EVENT-00"

    def __init__(self, message: str, *, event_type: str, position: int, cause: str) -> None:
        self.event_type = event_type
        self.position = position
        self.cause = cause
        super().__init__(message)


class HandlerError(PoisonEvent):
    """A handler failed on an event.

    :param cause: what it failed with; or a word for it, where its class is none of Python's or the author's
    :param also: what else may be the reason, as sentences
    """

    code = "PR-EVENT-01"

    def __init__(self, projector: str, event_type: str, position: int, cause: BaseException | str, also: str = "") -> None:
        word = cause if isinstance(cause, str) else type(cause).__name__
        self.what = f"{projector} failed on the event {event_type} at position {position}: {word}" + (f". {also}" if also else "")
        """What happened, without what to do: for those that have no task to retry."""
        super().__init__(
            f"{self.what.removesuffix('.')}. Correct the handler (or the event) and retry the task: it goes on from its checkpoint.",
            event_type=event_type,
            position=position,
            cause=word,
        )


class UndecodableEvent(PoisonEvent):
    """What the store holds for an event cannot be decoded."""

    code = "PR-EVENT-02"

    def __init__(self, event_type: str, position: int, cause: str) -> None:
        super().__init__(
            f"the event {event_type} at position {position} cannot be decoded: {cause}. Correct what decodes it (or the event) and retry",
            event_type=event_type,
            position=position,
            cause=cause,
        )


class UpcastError(PoisonEvent):
    """An event is of a version that nobody knows, or its upcaster failed."""

    code = "PR-EVENT-03"


class TooManyDeadLetters(PoisonEvent):
    """More events cannot be projected than the spec allows to set aside."""

    code = "PR-EVENT-04"


class ShardError(RebuildError):
    """Shards of a projector are not as separate as it is declared; names projector and table."""

    code = "PR-SHARD-01"


class RowError(RebuildError):
    """A handler asked something impossible of a row: a missing one, or one that is there already."""

    code = "PR-ROW-01"


class UnfitValue(RowError):
    """A handler gives a value that its column cannot hold; names table, column and the types, never the value.

    :param table: its live name
    :param given: the value's class
    :param wanted: what the row class promises
    """

    code = "PR-ROW-02"

    def __init__(self, table: str, column: str, given: type, wanted: type) -> None:
        promised = "" if given is wanted else f" (its row class says {wanted.__name__})"
        super().__init__(
            f"the column {column} of {table} cannot hold the {given.__name__} that a handler gives{promised}: it is of another type, too long, too "
            "large, or no such value"
        )


class LostRows(RebuildError):
    """Rows that were loaded, or written, are not there when they are to be changed; names table and number. Nothing of it is written."""

    code = "PR-WRITE-02"


class PartError(RebuildError):
    """A handler's rows and its events do not belong together as its projector's `part` declares; names the table."""

    code = "PR-PART-01"


class PlanError(RebuildError):
    """The rebuild cannot be planned as asked; nothing has been touched."""

    code = "PR-PLAN-01"


class ClaimRefused(RebuildError):
    """Another run works on one of the tables; names that run."""

    code = "PR-CLAIM-01"


class CloneError(RebuildError):
    """A green table cannot be made like its blue one; names table, object and remedy."""

    code = "PR-CLONE-01"


class ChangedSince(CloneError):
    """The live tables, or what hangs on them, are not as green was made like them; names each object and the remedy."""

    code = "PR-CLONE-02"


def changed_since(blue: str, green: str, changed: Iterable[str]) -> ChangedSince:
    """The refusal of a switch that would take back what has been done to a live table.

    :param changed: what has been changed, by kind and name
    """
    return ChangedSince(
        f"{blue} has been changed since {green} was made like it, and a switch would take that back: {', '.join(changed)}. "
        f"Run clone_tables and what follows it again, or change {green} in the same way"
    )


class LeftOnOld(RebuildError):
    """Something was done to a live table at the very moment of the switch, and is on the retired table only; names it."""

    code = "PR-SWAP-02"


class VerificationFailed(RebuildError):
    """Green does not pass; the message lists every finding. Blue is untouched."""

    code = "PR-VERIFY-01"


class Diverged(VerificationFailed):
    """Green has passed, and is no longer what its events make; the message lists every finding. Blue is untouched."""

    code = "PR-VERIFY-02"


class SpecSqlError(RebuildError):
    """SQL of a spec cannot be executed, or gives something else than it has to; names the key, and what the database says of it."""

    code = "PR-SQL-01"


class ProofFailed(RebuildError):
    """``prove`` cannot read the definitions of a schema; names the program that it needs for that."""

    code = "PR-PROVE-01"


class ProgramFailed(RebuildError):
    """A projector that is a program did not do what it was asked for; says what it is known by, never what it has said."""

    code = "PR-PROGRAM-01"
    retryable = True


class StepOrderError(RebuildError):
    """A step was called while its run is not in a state for it; names the state and the step that is missing."""

    code = "PR-ORDER-01"


class UnknownRun(StepOrderError):
    """The ledger does not know the run; it was never planned, or its record is gone."""

    code = "PR-ORDER-02"


class RunGivenUp(StepOrderError):
    """The run was given up, or another run has taken over its tables."""

    code = "PR-ORDER-03"


class StoppedAtCutover(StepOrderError):
    """The run was stopped within its cutover, or after it and before reconcile. It has to come to its end first."""

    code = "PR-ORDER-04"


class CutoverBegun(StepOrderError):
    """The run's cutover has begun, so what an operator asks for comes too late."""

    code = "PR-ORDER-05"


class NotReplayed(StepOrderError):
    """A projector that the step needs is not replayed to the end, or its tables were not cloned."""

    code = "PR-ORDER-06"


class ProgramCutShort(StepOrderError):
    """The last call of an external program did not end, so nobody knows what its tables hold."""

    code = "PR-ORDER-07"


class ForeignOldTable(StepOrderError):
    """A table that no run has retired has the name that the cutover gives to the old table."""

    code = "PR-ORDER-08"


class OldTableGone(StepOrderError):
    """An old table that a rollback takes back is not there any more."""

    code = "PR-ORDER-09"


class StoreEmpty(StepOrderError):
    """The event store is empty, so no part of a table can be rebuilt from it."""

    code = "PR-ORDER-10"


class Interrupted(RebuildError):
    """The step was asked to stop; what it had committed stays, and a retry goes on from there."""

    code = "PR-STOP-01"
    retryable = True


class FencedOut(RebuildError):
    """Another worker moved this checkpoint or took over this claim; this worker has written nothing more."""

    code = "PR-FENCE-01"


class SettleTimeout(RebuildError):
    """Appends in flight did not end in time, so the head of the event store is not known; try again."""

    code = "PR-SETTLE-01"
    retryable = True


class PositionError(RebuildError):
    """The event store holds a position that the ledger cannot keep; names it."""

    code = "PR-POSITION-01"


class FallingBehind(RebuildError):
    """Events are appended faster than they are replayed; what is done is kept, and a quieter hour can help."""

    code = "PR-REPLAY-01"
    retryable = True


class FenceLost(RebuildError):
    """The connection that held appends back died within the switch; says which events are in doubt and what to do."""

    code = "PR-FENCE-02"


class HeldByRollback(RebuildError):
    """A rollback is at work on the retired tables; names it. They can be dropped when it is over."""

    code = "PR-CLAIM-02"
    retryable = True


class SwapNotPossible(RebuildError):
    """The switch did not succeed within its attempts or its longest pause; everything was put back."""

    code = "PR-SWAP-01"
    retryable = True


class Troubled(RebuildError):
    """Something went wrong beneath a step, and the step is not to blame. Says where, what became of the tables, and what to do.

    :param happened: what went wrong, without any value
    :param remedy: what to do about it
    """

    code = "PR-TROUBLE-00"
    retryable = True

    def __init__(self, happened: str, remedy: str) -> None:
        super().__init__(happened)
        self.happened = happened
        self.remedy = remedy
        self.step = ""
        self.state = ""
        self.at = ""

    @property
    def message(self) -> str:
        """Step, what happened and where, the state of the tables, the remedy."""
        begin = f"{self.step}: " if self.step else ""
        told = (f"{begin}{self.happened}{self.at}", self.state, self.remedy)
        return ". ".join(each for each in told if each)

    @property
    def gist(self) -> str:
        """What happened, for those who may not be told host names and accounts."""
        return f"{self.code}, {self.happened}"

    def about(self, event_type: str, position: int, projector: str) -> None:
        """Told the event at which it happened."""
        self.at += f", when {projector} was at the event {event_type} at position {position}"

    def within(self, step: str, state: str) -> None:
        """Told the step in which it happened, and what that means for the tables; the outermost step counts."""
        self.step, self.state = step, state


class MachineTrouble(Troubled):
    """A worker's machine failed in the middle of something: its memory, its disk, its network, a module that it lacks."""

    code = "PR-MACHINE-01"


class EngineFault(Troubled):
    """The engine met something that it does not expect; names the kind of error and the place in the code."""

    code = "PR-ENGINE-01"


class CodeError(Troubled):
    """Code of an author's failed where no event is at hand: a projector's ``statements``, its ``part``. Names it, with file and line; a retry
    does not help."""

    code = "PR-CODE-01"
    retryable = False


class DatabaseTrouble(Troubled):
    """A database did not do a statement. There is a class for each kind of trouble.

    :param trouble: what it said, as far as that holds no value
    """

    code = "PR-DB-00"
    kind: ClassVar[Kind] = Kind.UNKNOWN
    todo: ClassVar[str] = "Look it up by its code, and in the database's own log, then retry"

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.describe(), self.todo)
        self.trouble = trouble

    @property
    def gist(self) -> str:
        return f"{self.code}, {self.trouble.gist()}"


class ConnectionLost(DatabaseTrouble):
    """The connection to a database has ended, or could not be made."""

    code = "PR-DB-01"
    kind = Kind.LOST
    todo = "A restart, a fail-over, a time limit or an administrator ends connections. See that the server is up and can be reached, then retry"


class PrivilegeMissing(DatabaseTrouble):
    """A database does not let our user do something; a retry does not help."""

    code = "PR-DB-02"
    retryable = False
    kind = Kind.DENIED
    todo = "Grant our user what it lacks, then clear the task"


class DatabaseReadOnly(DatabaseTrouble):
    """A database takes no writes now."""

    code = "PR-DB-03"
    kind = Kind.READ_ONLY
    todo = "Connect to the primary server, or make the database writable, then retry"


class ObjectMissing(DatabaseTrouble):
    """A table, a column or something else that a statement names is not there."""

    code = "PR-DB-04"
    kind = Kind.MISSING
    todo = "Somebody has dropped or renamed it. If a retry does not pass, bring it back, or trigger the rebuild again"


class OutOfRoom(DatabaseTrouble):
    """A database has no disk, no memory or no connections left."""

    code = "PR-DB-05"
    kind = Kind.FULL
    todo = "Make room on the database's server, then retry"


class LockNotHad(DatabaseTrouble):
    """A lock could not be had in time, or transactions waited for each other."""

    code = "PR-DB-06"
    kind = Kind.BUSY
    todo = "Look for long transactions on these tables, then retry"


class StatementCancelled(DatabaseTrouble):
    """A statement was cancelled by somebody, or by a time limit of the server."""

    code = "PR-DB-07"
    kind = Kind.CANCELLED
    todo = "An administrator, a time limit of the server, or the end of this task does that. Retry"


class ValueRefused(DatabaseTrouble):
    """A value does not fit where no event can be named for it. Its text is left out where it may quote the value."""

    code = "PR-DB-08"
    kind = Kind.VALUE
    todo = "If a retry does not pass, look up the code: a constraint or a column's type does not take what the rows or the events hold"


class StatementRefused(DatabaseTrouble):
    """A database cannot do a statement at all, or not with the tables as they are now. The text is left out where it may quote the SQL."""

    code = "PR-DB-09"
    kind = Kind.SQL
    todo = (
        "If a retry does not pass: correct the SQL where it is yours (projector, spec); else somebody has changed a table, and the rebuild has "
        "to be triggered again"
    )
