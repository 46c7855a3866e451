"""A rebuild as its YAML file describes it, and the choices of one run; both are checked before anything is touched."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, available_timezones

import sqlalchemy as sa
from croniter import CroniterError, croniter
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from projection_rebuild import external, limits
from projection_rebuild.boundary import failure_of, is_of_the_machine, machine_trouble
from projection_rebuild.errors import ProjectorError, SpecError
from projection_rebuild.external import OnRetry
from projection_rebuild.limits import (
    FIRST_YEAR,
    LAST_YEAR,
    LONGEST,
    LONGEST_HOLD,
    MOST_AGGREGATES,
    MOST_SAMPLED,
    MOST_SHARDS,
    shown,
)
from projection_rebuild.parts import Part
from projection_rebuild.presets import Preset, completed
from projection_rebuild.projector import Projector, foreign_readings, load_projector, needs, shared_tables
from projection_rebuild.spec_file import read_spec

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_DURATION = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*(ms|s|m|h|d)")


def parse_duration(value: object) -> timedelta:
    """``500ms``, ``2s``, ``15m``, ``6h`` or ``3d`` as a timedelta.

    :raises ValueError: it is none, is negative, or longer than :data:`projection_rebuild.limits.LONGEST`
    """
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        seconds = Decimal(found[1]) * _SECONDS[found[2]]
        if seconds <= Decimal(LONGEST.total_seconds()):
            return timedelta(microseconds=int(seconds * 1_000_000))
    elif not isinstance(value, timedelta):
        raise ValueError("write a duration with its unit, such as 500ms, 2s, 15m, 6h or 3d")
    elif timedelta(0) <= value <= LONGEST:
        return value
    raise ValueError(f"durations are between 0s and {LONGEST.days}d")


def _duration_text(value: timedelta) -> str:
    """In every digit, so that it is read again as what it was."""
    seconds, rest = divmod(value // timedelta(microseconds=1), 1_000_000)
    return f"{seconds}.{rest:06}s" if rest else f"{seconds}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(_duration_text, when_used="json")]


def _held(value: timedelta) -> timedelta:
    """Zero leaves no attempt a chance, and servers count in milliseconds that fit into 32 bits."""
    if not timedelta(milliseconds=1) <= value <= LONGEST_HOLD:
        raise ValueError(f"write a duration between 1ms and {LONGEST_HOLD.seconds // 3600}h: for as long others may have to wait")
    return value


HoldDuration = Annotated[Duration, AfterValidator(_held)]


def parse_moment(value: object) -> datetime:
    """ISO 8601 as a datetime, such as ``2026-01-31`` or ``2026-01-31T22:00:00+01:00``.

    :raises ValueError: it is none, or beyond the years that :mod:`projection_rebuild.limits` has
    """
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip() if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("write a date or a time as ISO 8601, such as 2026-01-31 or 2026-01-31T22:00:00+01:00") from None
    if not FIRST_YEAR <= found.year <= LAST_YEAR:
        raise ValueError(f"dates are in the years {FIRST_YEAR} to {LAST_YEAR}; for no bound, leave it out")
    return found


def _whole(value: object) -> object:
    """A truth, a text or 3.0 is no whole number, though Python and pydantic would take it for one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("write a whole number, such as 3, without quotes")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("write a number, such as 2.5, without quotes")
    return value


def _truth(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError("write true or false, without quotes")
    return value


_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2})?")


def _clock(value: object) -> object:
    if isinstance(value, time) and value.tzinfo is None:
        return value
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise ValueError('write a time of the day as "01:00"')
    return value


Moment = Annotated[datetime, BeforeValidator(parse_moment)]
Whole = Annotated[int, BeforeValidator(_whole)]
Flag = Annotated[bool, BeforeValidator(_truth)]
ClockTime = Annotated[time, BeforeValidator(_clock)]
ShardCount = Annotated[Whole, Field(ge=1, le=MOST_SHARDS)]
Percent = Annotated[float, BeforeValidator(_number), Field(ge=0, le=100, allow_inf_nan=False)]
Weekday = Literal["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
WEEKDAYS: tuple[Weekday, ...] = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


class Section(BaseModel):
    """A part of a spec: unknown keys are mistakes, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _known_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"'{shown(value)}' is no time zone; for example Europe/Amsterdam")
    return value


ZoneName = Annotated[str, AfterValidator(_known_zone)]


class EventColumns(Section):
    """The names of the event store's columns; the defaults are those of Spatie's ``stored_events``.

    ``version``, ``type_version``, ``metadata`` and ``recorded_at`` may be null where a store has no such column.

    :param position: the event's place in the total order
    :param stream: the aggregate
    :param type: the event's type, by which handlers are chosen
    :param payload: what the event says
    :param recorded_at: when it was appended
    :param version: the event's number within its stream
    :param type_version: the version of the event's type, for upcasters
    :param metadata: what is known about the event besides
    """

    position: str = "id"
    stream: str = "aggregate_uuid"
    type: str = "event_class"
    payload: str = "event_properties"
    recorded_at: str | None = "created_at"
    version: str | None = "aggregate_version"
    type_version: str | None = None
    metadata: str | None = "meta_data"


class StreamFormat(StrEnum):
    """What the bytes of a binary stream column stand for."""

    UUID = "uuid"
    HEX = "hex"
    TEXT = "text"


class TimeUnit(StrEnum):
    """What the numbers of a time column count since 1970 in UTC."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"


class EventStoreSection(Section):
    """Where events are read.

    :param conn_id: the Airflow connection
    :param preset: whose tables these are; gives defaults for all that follows
    :param table: the table of events
    :param schema: its schema; null: the connection's own
    :param columns: the names of its columns
    :param stream_format: what the bytes of a binary stream column stand for: a UUID, hexadecimal digits, or UTF-8 text
    :param decoder: ``package.module:function`` of what makes a mapping of a payload, its bytes or text as they are stored; null: it is JSON
    :param decimals: whether numbers with a fraction in JSON become exact Decimals instead of floats
    :param recorded_at_unit: the unit of a ``recorded_at`` that counts from 1970; null: the column holds times
    :param only: values of columns that an event must have, such as a tenant; null means NULL
    :param wait_for_holes: how long to wait for positions that are missing below the newest one. It is for stores that hand them out
        before the INSERT
    :param mapper: for pyeventsourcing, ``package.module:name`` of what gives its mapper, or the application
    """

    conn_id: str
    preset: Preset | None = None
    table: str = "stored_events"
    db_schema: str | None = Field(default=None, alias="schema")
    columns: EventColumns = EventColumns()
    only: dict[str, str | int | bool | None] = {}
    wait_for_holes: Duration | None = None
    mapper: str | None = None
    stream_format: StreamFormat | None = None
    decoder: str | None = None
    decimals: Flag = False
    recorded_at_unit: TimeUnit | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_its_preset(cls, given: Any) -> Any:
        return completed(given) if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _fits_its_preset(self) -> Self:
        python = self.preset is Preset.PYEVENTSOURCING
        if python and "table" not in self.model_fields_set:
            raise ValueError(
                "name event_store.table: the application's name in lower case and _events, such as bankaccounts_events"
            )
        if self.mapper is not None and not python:
            raise ValueError("event_store.mapper belongs to the preset pyeventsourcing")
        if self.decoder is not None and (python or self.decimals):
            raise ValueError(
                "event_store.decoder decodes payloads by itself; leave out the preset pyeventsourcing, and `decimals`, which is about JSON"
            )
        return self


class ReadModelsSection(Section):
    """Where the tables are that get rebuilt, and the ledger beside them.

    :param conn_id: the Airflow connection
    :param schema: the schema; null: the connection's own
    """

    conn_id: str
    db_schema: str | None = Field(default=None, alias="schema")


class LiveWriter(StrEnum):
    """How the application keeps blue current; decides the protocol of the cutover."""

    TRANSACTIONAL = "transactional"
    CHECKPOINTED = "checkpointed"
    DETACHED = "detached"


class ConsumerTable(Section):
    """The table in which asynchronous consumers keep their positions; it is swapped together with the read models.

    :param table: beside the read models; it has rows of the rebuilt projectors only
    :param name_column: the column that names the consumer
    :param position_column: the column that has its position
    :param names: what each projector is called in ``name_column``
    """

    table: str
    name_column: str
    position_column: str
    names: dict[str, str] = Field(min_length=1)


class LiveWriterSection(Section):
    """The contract that the application keeps.

    * ``transactional``: the append transaction also writes blue.
    * ``checkpointed``: a consumer writes blue together with its position in ``checkpoint.table``.
    * ``detached``: queue jobs or after-commit handlers write blue. SQL tells of them: ``jobs_left`` or ``drain_check``.

    A contract that needs no other key may be written as a text: ``live_writer: transactional``.

    :param contract: how the application writes blue
    :param checkpoint: where the consumer keeps its position; belongs to ``checkpointed``
    :param drain_check: SQL on the read models' database that gives 0 when no job has anything left to do; belongs to ``detached``
    :param jobs_left: SQL on the read models' database that gives the positions of the events that jobs have yet to project; belongs to
        ``detached``, instead of ``drain_check``
    """

    contract: LiveWriter
    checkpoint: ConsumerTable | None = None
    drain_check: str | None = None
    jobs_left: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.contract is LiveWriter.CHECKPOINTED) != (self.checkpoint is not None):
            raise ValueError("`checkpoint` (table, name_column, position_column, names) belongs to the contract checkpointed")
        told = (self.drain_check is not None) + (self.jobs_left is not None)
        if told != (self.contract is LiveWriter.DETACHED):
            raise ValueError(
                "either `jobs_left` (SQL that gives the positions of the events that have a job left) or `drain_check` (SQL that gives 0 when "
                "nothing is left to do) belongs to the contract detached"
            )
        return self


def _parse_live_writer(value: object) -> object:
    return {"contract": value} if isinstance(value, str) else value


class VerifySection(Section):
    """What green must be like before it may replace blue.

    :param max_count_drift_percent: how far a table's row count may be from blue's, in percent of blue's
    :param tables: other tolerances for single tables
    :param max_dead_letters: how many events of the run may be set aside as dead letters, in a run that swaps all the same
    :param sample: how many aggregates of each projector are refolded from raw rows by its handlers, and compared with green; 0: none
    :param sample_every: how often that is done again while the run waits for its swap; 0s: never
    :param assertions: SQL that must return no row, or 0, on green; ``{table}`` stands for a table's green name
    """

    max_count_drift_percent: Percent = 5.0
    tables: dict[str, Percent] = {}
    max_dead_letters: Whole = Field(default=0, ge=0)
    sample: Whole = Field(default=1_000, ge=0, le=MOST_SAMPLED)
    sample_every: Duration = timedelta(minutes=10)
    assertions: tuple[str, ...] = ()


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


class SwapSection(Section):
    """Bounds of the cutover.

    :param max_pause: the longest time for which writers may be held; past it everything is put back. On MySQL and MariaDB a plan is
        refused if a RENAME of so many tables cannot keep it
    :param lock_timeout: the longest wait for the locks in one attempt; readers queue behind a waiting lock
    :param attempts: how often it is tried before the task fails; with the pauses between, about two minutes in all
    :param small_backlog: the number of outstanding events below which the cutover begins
    :param wait_for_snapshots: how long to wait for transactions that read from a snapshot older than the green tables; after the
        swap they would find these empty. 0s: do not wait
    :param approval: whether a person has to approve it, once green is verified
    :param approval_timeout: how long to wait for that person; null: as long as it takes
    """

    max_pause: HoldDuration = timedelta(seconds=2)
    lock_timeout: HoldDuration = timedelta(milliseconds=100)
    attempts: Whole = Field(default=100, ge=1)
    small_backlog: Whole = Field(default=500, ge=1)
    wait_for_snapshots: Duration = timedelta(seconds=60)
    approval: Flag = False
    approval_timeout: Duration | None = None


class RetentionSection(Section):
    """What happens to the retired tables: kept until ``drop_after``, or dropped right after the swap.

    :param keep_old: whether the retired tables are kept
    :param drop_after: how long they are kept after the swap
    :param keep_green: how long green tables that never went live stay for inspection, once their run is over
    """

    keep_old: Flag = True
    drop_after: Duration = timedelta(hours=72)
    keep_green: Duration = timedelta(hours=72)


class NotifierSection(Section):
    """One notifier of Airflow.

    :param notifier: the import path of its class, such as ``airflow.providers.smtp.notifications.smtp.SmtpNotifier``
    :param arguments: what it is made with; templates where the notifier has them
    """

    notifier: str
    arguments: dict[str, Any] = {}


Notifiers = tuple[NotifierSection, ...]


class NotifySection(Section):
    """Who is told, of what.

    :param failure: a task has failed for good; also of a failed verification, where that has no notifiers of its own
    :param verification_failed: green must not replace blue
    :param waiting_too_long: the gate waits for longer than ``low_traffic.warn_after``
    :param approval_wanted: a person has to decide
    :param swapped: the swap is done
    :param rolled_back: the swap of a rollback is done
    :param deadline_missed: the run has not swapped by its ``deadline``
    """

    failure: Notifiers = ()
    verification_failed: Notifiers = ()
    waiting_too_long: Notifiers = ()
    approval_wanted: Notifiers = ()
    swapped: Notifiers = ()
    rolled_back: Notifiers = ()
    deadline_missed: Notifiers = ()


class OnError(StrEnum):
    """What becomes of an event that cannot be projected."""

    FAIL = "fail"
    DEAD_LETTER = "dead_letter"


class StructureSection(Section):
    """Another structure for the rebuilt tables than the one that they have; what it does not speak of goes on as it was.

    Name it by ``metadata`` or by ``ddl``, one of the two.

    :param metadata: ``package.module:name`` of an SQLAlchemy MetaData, or of the base class of declarative models
    :param ddl: a file of statements that make tables and indexes, beside the spec file
    :param views: new queries for views that the new structure would break, by name
    """

    metadata: str | None = None
    ddl: Path | None = None
    views: dict[str, str] = {}

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.metadata is None) == (self.ddl is None):
            raise ValueError("name the new structure by `metadata` (package.module:name) or by `ddl` (a file), one of the two")
        return self

    def load(self) -> sa.MetaData | str:
        """The metadata, or the text of the file.

        :raises SpecError: it cannot be imported or read, or is something else
        :raises MachineTrouble: the machine failed, or a database that its module asks; it may be imported later
        """
        if self.ddl is not None:
            try:
                return limits.read(self.ddl, limits.DDL_FILE)
            except SpecError as error:
                raise SpecError(f"structure.ddl: {error.message}") from None
        module_name, _, name = str(self.metadata).partition(":")
        try:
            found = getattr(importlib.import_module(module_name), name, None)
        # A module may do anything when it is imported, end the interpreter included.
        except (Exception, SystemExit) as error:
            if is_of_the_machine(error) and not isinstance(error, ImportError):
                raise machine_trouble(error, f", importing {module_name}") from None
            raise SpecError(f"structure.metadata: importing {module_name} failed with {failure_of(error)}") from None
        found = getattr(found, "metadata", found)
        if not isinstance(found, sa.MetaData):
            raise SpecError(f"structure.metadata: {self.metadata} is no MetaData; write it as package.module:name")
        return found


class ReplaySection(Section):
    """How events are replayed.

    What has been folded in memory is committed, with its checkpoint, as soon as one of the first four is reached.

    :param batch_events: events per transaction at most: what a retry has to do again after a kill. Where events may be set aside, 10,000
    :param commit_every: about how long a transaction of a projector's SQL may take. Handlers go by events and rows alone, so that the
        work is the same on a slow machine
    :param max_memory: MiB that the rows of one projector, or of one of its shards, may take in its worker, beyond what this takes
        anyway. Then they are written and forgotten, and loaded again when needed, which is several times slower
    :param max_rows_in_memory: the same as a number of rows; null: only ``max_memory`` counts
    :param shards: into how many parts a projector that can be divided is replayed; or the same by projector
    :param set_based: whether projectors that give SQL are replayed by it, instead of by their handlers
    :param on_error: whether a replay ends at an event that cannot be projected, or sets it aside in the ledger and goes on
    :param max_dead_letters: how many events may be set aside per projector before the replay ends all the same
    """

    batch_events: Whole = Field(default=1_000_000, ge=1)
    commit_every: Duration = timedelta(seconds=5)
    max_memory: Whole = Field(default=128, ge=1)
    max_rows_in_memory: Whole | None = Field(default=None, ge=0)
    shards: ShardCount | dict[str, ShardCount] = 1
    set_based: Flag = True
    on_error: OnError = OnError.FAIL
    max_dead_letters: Whole = Field(default=100, ge=1)

    def shards_of(self, projector: str) -> int:
        """Into how many parts a projector is replayed, if it can be divided."""
        return self.shards if isinstance(self.shards, int) else self.shards.get(projector, 1)


class ThrottleSection(Section):
    """When a replay slows down for the sake of the databases. A limit that is null is not looked at.

    Above a limit the replay rests for as long as it works; above twice the limit it waits until it is kept again.

    :param max_active_sessions: sessions that are executing something, ours left out; not known on SQLite
    :param max_replica_lag: how far replicas are behind; PostgreSQL tells, elsewhere ``replica_lag`` has to
    :param replica_lag: SQL on the read models' database that gives the lag in seconds
    :param max_commit_latency: what one of our own commits takes
    :param look_every: the time between two looks
    """

    max_active_sessions: Whole | None = Field(default=None, ge=0)
    max_replica_lag: Duration | None = None
    replica_lag: str | None = None
    max_commit_latency: Duration | None = None
    look_every: Duration = timedelta(seconds=1)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Limits that are given while a run goes on.

        :raises SpecError: names each key that cannot be used
        """
        return _validate(cls, given, "the limits")


class ProgramSection(Section):
    """A projector that is a program.

    :param name: what it is called; projectors have the names of their classes
    :param command: program and arguments; ``{from} {after} {to} {suffix} {schema} {run} {projector}`` are filled in
    :param tables: the tables that it fills, each with the columns that tell its rows apart
    :param event_types: the stored types that it handles
    :param depends_on: projectors listed before it that are replayed first
    :param on_retry: what a call that was cut short means for the next one
    :param batch_positions: the longest range of positions for one call; null: up to the head
    :param directory: where it is started
    :param environment: variables for it, beside those of the worker
    :param connections: whether it is told the two databases' URLs, passwords included, in its environment
    :param show_output: whether its output goes to the log; it may hold anything
    """

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")
    command: tuple[str, ...] = Field(min_length=1)
    tables: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(min_length=1)
    event_types: tuple[str, ...] = Field(min_length=1)
    depends_on: tuple[str, ...] = ()
    on_retry: OnRetry = OnRetry.RESTART
    batch_positions: Whole | None = Field(default=None, ge=1)
    directory: str | None = None
    environment: dict[Annotated[str, Field(pattern=r"^[^=]+$")], str] = {}
    connections: Flag = False
    show_output: Flag = False

    def load(self, loaded: Mapping[str, type[Projector]]) -> type[Projector]:
        """The program as a projector class.

        :param loaded: those before it, by name
        :raises ProjectorError: it depends on another one
        """
        if unknown := [each for each in self.depends_on if each not in loaded]:
            raise ProjectorError(
                f"{self.name} depends on {', '.join(unknown)}; a program depends on projectors that are listed before it"
            )
        how = self.model_dump(
            include={"command", "on_retry", "batch_positions", "directory", "environment", "connections", "show_output"}
        )
        return external.made_of(self.name, self.tables, self.event_types, [loaded[each] for each in self.depends_on], **how)


def _comes(schedule: str) -> bool:
    """Whether a cron expression is one, and its time ever comes: the 31st of February would stop Airflow at all DAGs of the file."""
    try:
        return bool(croniter.is_valid(schedule) and croniter(schedule, datetime(2000, 1, 1, tzinfo=UTC)).get_next(float))
    except CroniterError:
        return False


class RebuildSpec(Section):
    """One spec file: what is rebuilt, from where, when, and under which bounds.

    :param rebuild: the name of the rebuild: letters, digits, ``_`` and ``-``
    :param schedule: a cron expression; null: by hand only
    :param timezone: of the schedule and of the windows
    :param event_store: where events are read
    :param read_models: where the tables are
    :param projectors: ``package.module:Class`` of each, or a program
    :param live_writer: how the application keeps blue current
    :param verify: what green must be like
    :param low_traffic: when the swap may happen
    :param swap: bounds of the cutover
    :param retention: what happens to the retired tables
    :param notify: who is told of what
    :param deadline: by when a run has to have swapped, from the moment when it is queued
    :param replay: how events are replayed
    :param throttle: when a replay slows down
    :param stages: waves over several nights
    :param structure: another structure for the tables
    """

    rebuild: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    schedule: str | None = None
    timezone: ZoneName = "UTC"
    event_store: EventStoreSection
    read_models: ReadModelsSection
    projectors: tuple[str | ProgramSection, ...] = Field(min_length=1)
    live_writer: Annotated[LiveWriterSection, BeforeValidator(_parse_live_writer)]
    verify: VerifySection = VerifySection()
    low_traffic: LowTrafficSection = LowTrafficSection()
    swap: SwapSection = SwapSection()
    retention: RetentionSection = RetentionSection()
    notify: NotifySection = NotifySection()
    deadline: Duration | None = None
    replay: ReplaySection = ReplaySection()
    throttle: ThrottleSection = ThrottleSection()
    stages: tuple[StageSection, ...] = ()
    structure: StructureSection | None = None

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not _comes(value):
            raise ValueError(f"'{shown(value)}' is no cron expression; for example 0 2 * * SUN, or null for manual runs only")
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the schedule."""
        return ZoneInfo(self.timezone)

    @property
    def window_zone(self) -> ZoneInfo:
        """The time zone of the low-traffic windows."""
        return ZoneInfo(self.low_traffic.timezone or self.timezone)

    def stage_of(self, projector: str) -> StageSection | None:
        """The stage in which a projector is replayed; None: it is not bound to any."""
        return next((each for each in self.stages if projector in each.projectors), None)

    def begins_at_once(self, projector: str) -> bool:
        """Whether no stage has to be done before it is replayed."""
        return self.stage_of(projector) in (None, *self.stages[:1])

    def load_projectors(self) -> dict[str, type[Projector]]:
        """The projector classes by name, in the order of the spec.

        :raises ProjectorError: one cannot be imported or used, two share a name
        """
        loaded: dict[str, type[Projector]] = {}
        for each in self.projectors:
            projector = load_projector(each) if isinstance(each, str) else each.load(loaded)
            if projector.name() in loaded:
                raise ProjectorError(
                    f"{each if isinstance(each, str) else each.name}: there is already a projector named {projector.name()}; rename one"
                )
            loaded[projector.name()] = projector
        return loaded


PARAMETERS = "the run's parameters"
"""What the choices of a run are called in messages."""

AggregateName = Annotated[str, Field(min_length=1)]


class RunOptions(Section):
    """What is chosen for one run; whatever is null comes from the spec.

    :param projectors: names of the projectors to rebuild; null: all of the spec
    :param rebuild_dependents: also those that depend on the chosen ones
    :param since: only a part: what events recorded from here on concern; without an offset, in the spec's time zone
    :param until: only a part: what events recorded before here concern
    :param aggregates: only a part: what the events of these streams concern
    :param max_count_drift_percent: the tolerance of the count check for all tables
    :param shards: into how many parts each projector that can be divided is replayed
    :param keep_old: whether the retired tables are kept
    :param drop_after: how long they are kept
    :param approval: whether a person has to approve the swap
    :param replay_now: do not wait for the windows of stages
    :param swap_now: do not wait for low traffic
    :param dry_run: plan, print the SQL, and stop
    :param reason: why, in free words; for the record
    """

    projectors: tuple[str, ...] | None = None
    rebuild_dependents: Flag = False
    since: Moment | None = None
    until: Moment | None = None
    aggregates: Annotated[tuple[AggregateName, ...], Field(max_length=MOST_AGGREGATES)] | None = None
    max_count_drift_percent: Percent | None = None
    shards: ShardCount | None = None
    keep_old: Flag | None = None
    drop_after: Duration | None = None
    approval: Flag | None = None
    replay_now: Flag = False
    swap_now: Flag = False
    dry_run: Flag = False
    reason: str = ""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.projectors is not None and not self.projectors:
            raise ValueError("projectors: none is chosen; choose at least one, or leave the field out for all")
        if self.aggregates is not None and not self.aggregates:
            raise ValueError("aggregates: none is given; give at least one, or leave the field out for all")
        return self

    def part(self, zone: ZoneInfo) -> Part | None:
        """The part that is to be rebuilt; None: everything.

        :param zone: of times that were given without an offset
        :raises SpecError: the part ends before it begins
        """
        if self.since is None and self.until is None and self.aggregates is None:
            return None
        since, until = (each if each is None or each.tzinfo else each.replace(tzinfo=zone) for each in (self.since, self.until))
        if since is not None and until is not None and since >= until:
            raise SpecError(f"since, until: {since.isoformat()} is not before {until.isoformat()}; correct one of them")
        return Part(since=since, until=until, aggregates=None if self.aggregates is None else sorted(set(self.aggregates)))

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """The options from a form, ``--conf`` or a REST call.

        :raises SpecError: names each field that cannot be used
        """
        return _validate(cls, given, PARAMETERS)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """The options that the ledger has of a run; one that an earlier version began goes on, whose limits were wider."""
        kept = dict(record)
        kept["reason"] = str(kept.get("reason") or "")[: limits.REASON]
        if kept.get("drop_after") is not None:
            # It wrote long durations as 1.296e+06s.
            seconds = float(str(kept["drop_after"]).removesuffix("s"))
            kept["drop_after"] = timedelta(seconds=min(seconds, LONGEST.total_seconds()))
        return cls.model_validate(kept)


S = TypeVar("S", bound=Section)


def _validate(model: type[S], given: object, where: str) -> S:
    limits.check(given, where)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Without the input values: a spec may hold SQL, and a form may hold anything.
        found = error.errors(include_input=False, include_context=False, include_url=False)
        problems = [f"{limits.at(each['loc'])}: {shown(_readable(each['msg']), 300)}" for each in found[: limits.MOST_PROBLEMS]]
        more = [f"and {len(found) - len(problems)} more"] if len(found) > len(problems) else []
        raise SpecError(f"{where} cannot be used. " + " | ".join(problems + more)) from None


def _readable(message: str) -> str:
    return (
        message.removeprefix("Value error, ")
        .replace("Extra inputs are not permitted", "there is no such key; check its spelling and its place")
        .replace("Field required", "this key is required")
    )


def load_spec(path: Path) -> RebuildSpec:
    """Reads and checks a spec file, projectors included.

    :raises SpecError: names file, key and remedy
    """
    given, name = read_spec(path), shown(path.name, limits.NAME)
    spec = _validate(RebuildSpec, given, name)
    try:
        shared = [*shared_tables(spec.load_projectors().values())]
    except ProjectorError as error:
        raise SpecError(f"{name}, projectors: {shown(error.message, 1_000)}") from error
    if shared:
        raise SpecError(f"{name}, projectors: {shown(' | '.join(map(str, shared)), 1_000)}")
    if otherwise := [*foreign_readings(spec.load_projectors())]:
        raise SpecError(f"{name}, projectors: {shown(' | '.join(otherwise), 1_000)}")
    if wrong := [*_misplaced(spec)]:
        raise SpecError(f"{name}, stages: {shown(' | '.join(wrong), 1_000)}")
    return _beside(path, spec)


def _misplaced(spec: RebuildSpec) -> Iterator[str]:
    """What of the stages does not fit the projectors."""
    if not spec.stages:
        return
    projectors = spec.load_projectors()
    places: dict[str, int] = {}
    names = [stage.name for stage in spec.stages]
    if len(set(names)) < len(names):
        yield "two have the same name; rename one"
    for at, stage in enumerate(spec.stages):
        for name in stage.projectors:
            if name not in projectors:
                yield f"{stage.name} names {name}, which is none of the projectors; they are {', '.join(projectors)}"
            elif name in places:
                yield f"{name} is named twice; leave it in one stage"
            else:
                places[name] = at
    if missing := [name for name in projectors if name not in places]:
        yield f"{', '.join(missing)} is in none of them; add it to one"
    for name, needed in ((name, each) for name, before in needs(projectors).items() for each in before):
        if places.get(needed, 0) > places.get(name, len(names)):
            yield f"{name} is in an earlier stage than {needed}, on which it depends; move one of them"


def _beside(path: Path, spec: RebuildSpec) -> RebuildSpec:
    """With the file of the new structure looked for beside the spec file, and both seen to be there."""
    structure = spec.structure
    if structure is None:
        return spec
    if structure.ddl is not None:
        structure = structure.model_copy(update={"ddl": path.parent / structure.ddl})
    try:
        structure.load()
    except SpecError as error:
        raise SpecError(f"{shown(path.name, limits.NAME)}, {error.message}") from None
    return spec.model_copy(update={"structure": structure})
