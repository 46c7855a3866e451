"""A rebuild as its YAML file describes it, and the choices of one run; both are checked before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, available_timezones

import yaml
from croniter import croniter
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from include.projection_rebuild.errors import ProjectorError, SpecError
from include.projection_rebuild.projector import Projector, load_projector, refuse_shared_tables

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def parse_duration(value: object) -> object:
    """``500ms``, ``2s``, ``15m``, ``6h`` or ``3d`` as a timedelta; anything else is left to pydantic."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value.strip())):
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    if isinstance(value, (str, int, float)):
        raise ValueError("write a duration with its unit, such as 500ms, 2s, 15m, 6h or 3d")
    return value


def _duration_text(value: timedelta) -> str:
    return f"{value.total_seconds():g}s"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(_duration_text, when_used="json")]
Percent = Annotated[float, Field(ge=0, le=100)]
Weekday = Literal["MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"]
WEEKDAYS: tuple[Weekday, ...] = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


class Section(BaseModel):
    """A part of a spec: unknown keys are mistakes, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EventColumns(Section):
    """The names of the event store's columns; the defaults are those of Spatie's ``stored_events``.

    ``version``, ``metadata`` and ``recorded_at`` may be null where a store has no such column.
    """

    position: str = "id"
    stream: str = "aggregate_uuid"
    type: str = "event_class"
    payload: str = "event_properties"
    recorded_at: str | None = "created_at"
    version: str | None = "aggregate_version"
    metadata: str | None = "meta_data"


class EventStoreSection(Section):
    """Where events are read."""

    conn_id: str
    table: str = "stored_events"
    db_schema: str | None = Field(default=None, alias="schema")
    columns: EventColumns = EventColumns()


class ReadModelsSection(Section):
    """Where the tables are that get rebuilt, and the ledger beside them."""

    conn_id: str
    db_schema: str | None = Field(default=None, alias="schema")


class LiveWriter(StrEnum):
    """How the application keeps blue current; decides the protocol of the switch."""

    TRANSACTIONAL = "transactional"
    CHECKPOINTED = "checkpointed"
    DETACHED = "detached"


class ConsumerTable(Section):
    """The table in which asynchronous consumers keep their positions; it is switched together with the read models.

    :param table: beside the read models; it has rows of the rebuilt projectors only
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
    * ``detached``: queue jobs or after-commit handlers write blue; ``drain_check`` is SQL on the read models' database that
      gives 0 when none of them has anything left to do.
    """

    contract: LiveWriter
    checkpoint: ConsumerTable | None = None
    drain_check: str | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.contract is LiveWriter.CHECKPOINTED) != (self.checkpoint is not None):
            raise ValueError("`checkpoint` (table, name_column, position_column, names) belongs to the contract checkpointed")
        if (self.contract is LiveWriter.DETACHED) != (self.drain_check is not None):
            raise ValueError("`drain_check` (SQL that gives 0 when nothing is left to do) belongs to the contract detached")
        return self


def _parse_live_writer(value: object) -> object:
    return {"contract": value} if isinstance(value, str) else value


class VerifySection(Section):
    """What green must be like before it may replace blue.

    :param max_count_drift_percent: how far a table's row count may be from blue's, in percent of blue's
    :param tables: other tolerances for single tables
    :param assertions: SQL that must return no row, or 0, on green; ``{table}`` stands for a table's green name
    """

    max_count_drift_percent: Percent = 5.0
    tables: dict[str, Percent] = {}
    assertions: tuple[str, ...] = ()


class Window(Section):
    """A stretch of the day, across midnight where its end is not after its start."""

    start: time
    end: time

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


class LowTrafficSection(Section):
    """When the switch may happen. A limit that is null is not looked at.

    :param window: wall-clock time in the spec's time zone; null: at any time
    :param days: the weekdays on which the window opens
    :param max_appends_per_minute: appends to the event store, counted between two looks
    :param max_active_sessions: sessions of the read-model database that are executing something, ours left out
    :param give_up_after: how long to wait before the task fails
    :param look_every: the time between two looks
    """

    window: Annotated[Window | None, BeforeValidator(_parse_window)] = None
    days: tuple[Weekday, ...] = WEEKDAYS
    max_appends_per_minute: int | None = Field(default=None, ge=0)
    max_active_sessions: int | None = Field(default=None, ge=0)
    give_up_after: Duration = timedelta(hours=6)
    look_every: Duration = timedelta(seconds=30)


class SwapSection(Section):
    """Bounds of the switch.

    :param max_pause: the longest time for which writers may be held; past it everything is put back
    :param lock_timeout: the longest wait for the locks in one attempt; readers queue behind a waiting lock
    :param attempts: how often it is tried before the task fails
    :param small_backlog: the number of outstanding events below which the switch begins
    """

    max_pause: Duration = timedelta(seconds=2)
    lock_timeout: Duration = timedelta(milliseconds=100)
    attempts: int = Field(default=20, ge=1)
    small_backlog: int = Field(default=500, ge=1)


class RetentionSection(Section):
    """What happens to the retired tables: kept until ``drop_after``, or dropped right after the switch."""

    keep_old: bool = True
    drop_after: Duration = timedelta(hours=72)


class ReplaySection(Section):
    """How events are replayed.

    :param batch_events: events per transaction
    :param max_rows_in_memory: rows kept between batches; beyond it they are loaded again when needed
    """

    batch_events: int = Field(default=10_000, ge=1)
    max_rows_in_memory: int = Field(default=200_000, ge=0)


class RebuildSpec(Section):
    """One spec file: what is rebuilt, from where, when, and under which bounds."""

    rebuild: str = Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")
    schedule: str | None = None
    timezone: str = "UTC"
    event_store: EventStoreSection
    read_models: ReadModelsSection
    projectors: tuple[str, ...] = Field(min_length=1)
    live_writer: Annotated[LiveWriterSection, BeforeValidator(_parse_live_writer)]
    verify: VerifySection = VerifySection()
    low_traffic: LowTrafficSection = LowTrafficSection()
    swap: SwapSection = SwapSection()
    retention: RetentionSection = RetentionSection()
    replay: ReplaySection = ReplaySection()

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        if value is not None and not croniter.is_valid(value):
            raise ValueError(f'{value!r} is no cron expression; for example "0 2 * * SUN", or null for manual runs only')
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is no time zone; for example Europe/Amsterdam")
        return value

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the schedule and of the low-traffic window."""
        return ZoneInfo(self.timezone)

    def load_projectors(self) -> dict[str, type[Projector]]:
        """The projector classes by name, in the order of the spec.

        :raises ProjectorError: one cannot be imported or used, two share a table or a name
        """
        loaded: dict[str, type[Projector]] = {}
        for path in self.projectors:
            projector = load_projector(path)
            if projector.name() in loaded:
                raise ProjectorError(f"{path}: there is already a projector named {projector.name()}; rename one")
            loaded[projector.name()] = projector
        refuse_shared_tables(loaded.values())
        return loaded


class RunOptions(Section):
    """What is chosen for one run; whatever is None comes from the spec.

    :param projectors: names of the projectors to rebuild; None: all of the spec
    :param rebuild_dependents: also those that depend on the chosen ones
    :param max_count_drift_percent: the tolerance of the count check for all tables
    :param keep_old: whether the retired tables are kept
    :param drop_after: how long they are kept
    :param swap_now: do not wait for low traffic
    :param dry_run: plan, print the SQL, and stop
    :param reason: why, in free words; for the record
    """

    projectors: tuple[str, ...] | None = None
    rebuild_dependents: bool = False
    max_count_drift_percent: Percent | None = None
    keep_old: bool | None = None
    drop_after: Duration | None = None
    swap_now: bool = False
    dry_run: bool = False
    reason: str = ""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.projectors is not None and not self.projectors:
            raise ValueError("projectors: none is chosen; choose at least one, or leave the field out for all")
        return self

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """The options from a form, ``--conf`` or a REST call.

        :raises SpecError: names each field that cannot be used
        """
        return _validate(cls, given, "the run's parameters")


S = TypeVar("S", bound=Section)


def _validate(model: type[S], given: object, where: str) -> S:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # Without the input values: a spec may hold SQL, and a form may hold anything.
        problems = [f"{'.'.join(map(str, each['loc'])) or 'all'}: {_readable(each['msg'])}" for each in error.errors()]
        raise SpecError(f"{where} cannot be used. " + " | ".join(problems)) from None


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
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SpecError(f"{path.name} cannot be read as YAML: {error}") from error
    if not isinstance(given, dict):
        raise SpecError(f"{path.name} is not a mapping; start it with `rebuild: <name>`")
    spec = _validate(RebuildSpec, given, path.name)
    try:
        spec.load_projectors()
    except ProjectorError as error:
        raise SpecError(f"{path.name}, projectors: {error}") from error
    return spec
