"""The errors of the rebuild engine. Each message says what has happened, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from projection_rebuild.errors.trouble import Kind, Trouble


class RebuildError(Exception):
    """The base class of all errors that the engine raises on purpose. Their text ends in a code: ``... [PR-PLAN-01]``.

    Each kind of error has a class and a code of its own. A code is an anchor in ``docs/on-call/errors.md``. It never
    gets another meaning, and no new class reuses the code of a removed class.
    """

    retryable: bool = False
    """Whether a retry of the same step can help without a change by an operator."""

    code: ClassVar[str] = "PR-ERROR-00"

    @property
    def message(self) -> str:
        """The message without the code, for use within another text."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class ConnectionRefused(RebuildError):
    """The engine cannot work with a database over the configured connection; it has set and written nothing there.

    The message names the connection, the reason and the remedy. It has no address, no account and no password.

    :param retryable: whether the same connection may work later: the server is down, or has no free connection
    """

    code = "PR-CONNECTION-01"

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        self.retryable = retryable
        super().__init__(message)


class SpecError(RebuildError):
    """The engine cannot use a spec file or the options of a run; the message names the file, the key and the remedy."""

    code = "PR-SPEC-01"


class UnsupportedDatabase(RebuildError):
    """The engine does not support this database or driver; the message names the supported ones."""

    code = "PR-DB-20"


class ProjectorError(RebuildError):
    """The declaration of a projector is wrong; the message names the class and the remedy."""

    code = "PR-PROJECTOR-01"


class SessionError(RebuildError):
    """With a setting of the application's session, live projectors would write other rows than a rebuild.

    The message names the setting and the remedy.
    """

    code = "PR-SESSION-01"


class PoisonEvent(RebuildError):
    """The engine cannot project an event; the message names its type and position, never its payload.

    :param cause: the class of the error behind this one, without its text
    """

    code = "PR-EVENT-00"

    def __init__(self, message: str, *, event_type: str, position: int, cause: str) -> None:
        self.event_type = event_type
        self.position = position
        self.cause = cause
        super().__init__(message)


class HandlerError(PoisonEvent):
    """A handler failed on an event.

    :param cause: the exception of the handler; or a word for it, if its class is neither Python's nor the author's
    :param also: other possible reasons, as sentences
    """

    code = "PR-EVENT-01"

    def __init__(self, projector: str, event_type: str, position: int, cause: BaseException | str, also: str = "") -> None:
        word = cause if isinstance(cause, str) else type(cause).__name__
        self.what = f"{projector} failed on the event {event_type} at position {position}: {word}" + (f". {also}" if also else "")
        """The message without the remedy, for callers that have no task to retry."""
        super().__init__(
            f"{self.what.removesuffix('.')}. Correct the handler (or the event) and retry the task: it goes on from its checkpoint.",
            event_type=event_type,
            position=position,
            cause=word,
        )


class UndecodableEvent(PoisonEvent):
    """The engine cannot decode an event as the store holds it."""

    code = "PR-EVENT-02"

    def __init__(self, event_type: str, position: int, cause: str) -> None:
        super().__init__(
            f"the event {event_type} at position {position} cannot be decoded: {cause}. Correct what decodes it (or the event) and retry",
            event_type=event_type,
            position=position,
            cause=cause,
        )


class UpcastError(PoisonEvent):
    """The version of an event is unknown, or its upcaster has failed."""

    code = "PR-EVENT-03"


class TooManyDeadLetters(PoisonEvent):
    """A replay has more poison events than the spec allows as dead letters."""

    code = "PR-EVENT-04"


class ShardError(RebuildError):
    """The shards of a projector are not independent, contrary to its declaration; names projector and table."""

    code = "PR-SHARD-01"


class RowError(RebuildError):
    """A handler cannot use a row in this way, for example because it does not exist, or exists already."""

    code = "PR-ROW-01"


class UnfitValue(RowError):
    """A handler gives a value that its column cannot hold; names table, column and the types, never the value.

    :param table: the live name of the table
    :param given: the class of the value
    :param wanted: the type that the row class declares
    """

    code = "PR-ROW-02"

    def __init__(self, table: str, column: str, given: type, wanted: type) -> None:
        promised = "" if given is wanted else f" (its row class says {wanted.__name__})"
        super().__init__(
            f"the column {column} of {table} cannot hold the {given.__name__} that a handler gives{promised}: it is of another type, too long, too "
            "large, or no such value"
        )


class LostRows(RebuildError):
    """Rows that the replay has loaded or written are gone when it changes them; names table and number.

    The replay has written nothing of the batch.
    """

    code = "PR-WRITE-02"


class PartError(RebuildError):
    """A handler has used rows of another part than its event, contrary to its projector's `part`; names the table."""

    code = "PR-PART-01"


class PlanError(RebuildError):
    """The engine refuses to plan the rebuild; it has changed nothing."""

    code = "PR-PLAN-01"


class ClaimRefused(RebuildError):
    """Another run has a claim on one of the tables; names that run."""

    code = "PR-CLAIM-01"


class CloneError(RebuildError):
    """The engine cannot clone a blue table to green; names table, object and remedy."""

    code = "PR-CLONE-01"


class ChangedSince(CloneError):
    """The live tables or their dependent objects have changed since the clone; names each object and the remedy."""

    code = "PR-CLONE-02"


def changed_since(blue: str, green: str, changed: Iterable[str]) -> ChangedSince:
    """The error for a swap that would undo changes to a live table.

    :param changed: the changes, by kind and name
    """
    return ChangedSince(
        f"{blue} has been changed since {green} was made like it, and a switch would take that back: {', '.join(changed)}. "
        f"Run clone_tables and what follows it again, or change {green} in the same way"
    )


class LeftOnOld(RebuildError):
    """A change to a live table came at the moment of the swap, so only the old table has it; names the change."""

    code = "PR-SWAP-02"


class VerificationFailed(RebuildError):
    """Green has not passed verification; the message lists every finding. Blue is untouched."""

    code = "PR-VERIFY-01"


class Diverged(VerificationFailed):
    """Green has passed, but no longer matches its events; the message lists every finding. Blue is untouched."""

    code = "PR-VERIFY-02"


class SpecSqlError(RebuildError):
    """SQL in a spec fails or returns a wrong result; names the key, and the error of the database."""

    code = "PR-SQL-01"


class ProofFailed(RebuildError):
    """``prove`` cannot read the definitions of a schema; names the program that it needs."""

    code = "PR-PROVE-01"


class ProgramFailed(RebuildError):
    """An external program has failed; the message names it, but never quotes its output."""

    code = "PR-PROGRAM-01"
    retryable = True


class StepOrderError(RebuildError):
    """The state of a run does not allow this step; names the state and the missing step."""

    code = "PR-ORDER-01"


class UnknownRun(StepOrderError):
    """The ledger has no record of the run: the step `plan` has not run, or the record is gone."""

    code = "PR-ORDER-02"


class RunGivenUp(StepOrderError):
    """An operator has given up the run, or another run has taken over its tables."""

    code = "PR-ORDER-03"


class StoppedAtCutover(StepOrderError):
    """The run stopped within its cutover, or between it and reconcile. An operator has to finish it first."""

    code = "PR-ORDER-04"


class CutoverBegun(StepOrderError):
    """The run's cutover has begun, so a request of an operator comes too late."""

    code = "PR-ORDER-05"


class NotReplayed(StepOrderError):
    """The replay of a projector that the step needs is not complete, or its tables are not cloned."""

    code = "PR-ORDER-06"


class ProgramCutShort(StepOrderError):
    """The last call of an external program did not end, so the contents of its tables are unknown."""

    code = "PR-ORDER-07"


class ForeignOldTable(StepOrderError):
    """A table that no run has retired has the name of the old table, which the cutover needs."""

    code = "PR-ORDER-08"


class OldTableGone(StepOrderError):
    """An old table that a rollback needs is gone."""

    code = "PR-ORDER-09"


class StoreEmpty(StepOrderError):
    """The event store is empty, so the engine cannot rebuild a part of a table from it."""

    code = "PR-ORDER-10"


class Interrupted(RebuildError):
    """Airflow or an operator has stopped the step; its committed work stays, and a retry continues from there."""

    code = "PR-STOP-01"
    retryable = True


class FencedOut(RebuildError):
    """Another worker has moved this checkpoint or taken over this claim; this worker has written nothing since."""

    code = "PR-FENCE-01"


class SettleTimeout(RebuildError):
    """Open transactions that append events did not end in time, so the high-water mark is unknown; a retry can help."""

    code = "PR-SETTLE-01"
    retryable = True


class PositionError(RebuildError):
    """The event store has a position that the ledger cannot store; names it."""

    code = "PR-POSITION-01"


class FallingBehind(RebuildError):
    """The application appends events faster than the engine replays them; a retry in a quieter hour can help."""

    code = "PR-REPLAY-01"
    retryable = True


class FenceLost(RebuildError):
    """The connection with the fence has ended within the swap; names the events in doubt and the remedy."""

    code = "PR-FENCE-02"


class HeldByRollback(RebuildError):
    """A rollback uses the old tables; names it. An operator can drop them after the rollback."""

    code = "PR-CLAIM-02"
    retryable = True


class SwapNotPossible(RebuildError):
    """The cutover has not succeeded within its attempts or its longest pause; the engine has undone each attempt."""

    code = "PR-SWAP-01"
    retryable = True


class Troubled(RebuildError):
    """A machine, a database or other code has failed within a step; names the place, the tables' state and the remedy.

    :param happened: the failure, without values
    :param remedy: what to do
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
        """The step, the failure and its place, the state of the tables, the remedy."""
        begin = f"{self.step}: " if self.step else ""
        sentences = (f"{begin}{self.happened}{self.at}", self.state, self.remedy)
        return ". ".join(sentence for sentence in sentences if sentence)

    @property
    def gist(self) -> str:
        """The failure for readers who may not see host names and accounts."""
        return f"{self.code}, {self.happened}"

    def about(self, event_type: str, position: int, projector: str) -> None:
        """Adds the event of the failure to the message."""
        self.at += f", when {projector} was at the event {event_type} at position {position}"

    def within(self, step: str, state: str) -> None:
        """Adds the step of the failure and the state of the tables to the message; the outermost step counts."""
        self.step, self.state = step, state


class MachineTrouble(Troubled):
    """The machine of a worker has failed: its memory, its disk, its network, a missing module."""

    code = "PR-MACHINE-01"


class EngineFault(Troubled):
    """An exception that the engine does not expect; names its class and its place in the code."""

    code = "PR-ENGINE-01"


class CodeError(Troubled):
    """An author's code has failed without an event, such as a projector's ``statements`` or ``part``.

    The message names the function, file and line; a retry does not help.
    """

    code = "PR-CODE-01"
    retryable = False


class DatabaseTrouble(Troubled):
    """A database has not executed a statement. Each kind of trouble has a class.

    :param trouble: the error of the database, without values
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
    """The connection to a database has ended, or the worker could not connect."""

    code = "PR-DB-01"
    kind = Kind.LOST
    todo = "A restart, a fail-over, a time limit or an administrator ends connections. See that the server is up and can be reached, then retry"


class PrivilegeMissing(DatabaseTrouble):
    """The engine's user lacks a privilege in a database; a retry does not help."""

    code = "PR-DB-02"
    retryable = False
    kind = Kind.DENIED
    todo = "Grant our user what it lacks, then clear the task"


class DatabaseReadOnly(DatabaseTrouble):
    """A database accepts no writes now."""

    code = "PR-DB-03"
    kind = Kind.READ_ONLY
    todo = "Connect to the primary server, or make the database writable, then retry"


class ObjectMissing(DatabaseTrouble):
    """A table, a column or another object that a statement names does not exist."""

    code = "PR-DB-04"
    kind = Kind.MISSING
    todo = "Somebody has dropped or renamed it. If a retry does not pass, bring it back, or trigger the rebuild again"


class OutOfRoom(DatabaseTrouble):
    """A database has no disk, no memory or no connections left."""

    code = "PR-DB-05"
    kind = Kind.FULL
    todo = "Make room on the database's server, then retry"


class LockNotHad(DatabaseTrouble):
    """A statement has waited too long for a lock, or transactions have waited for each other."""

    code = "PR-DB-06"
    kind = Kind.BUSY
    todo = "Look for long transactions on these tables, then retry"


class StatementCancelled(DatabaseTrouble):
    """An administrator or a time limit of the server has cancelled a statement."""

    code = "PR-DB-07"
    kind = Kind.CANCELLED
    todo = "An administrator, a time limit of the server, or the end of this task does that. Retry"


class ValueRefused(DatabaseTrouble):
    """A database refuses a value of an unknown event. The message omits a text that may quote the value."""

    code = "PR-DB-08"
    kind = Kind.VALUE
    todo = "If a retry does not pass, look up the code: a constraint or a column's type does not take what the rows or the events hold"


class StatementRefused(DatabaseTrouble):
    """A database cannot execute a statement, or not on these tables. The message omits text that may quote SQL."""

    code = "PR-DB-09"
    kind = Kind.SQL
    todo = (
        "If a retry does not pass: correct the SQL where it is yours (projector, spec); else somebody has changed a table, and the rebuild has "
        "to be triggered again"
    )
