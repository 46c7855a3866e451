"""A rebuild as its YAML file describes it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter
from pydantic import BeforeValidator, Field, field_validator

from projection_rebuild.model.limits import shown
from projection_rebuild.spec.cutover import RetentionSection, SwapSection, VerifySection
from projection_rebuild.spec.fields import Duration, Section, ZoneName
from projection_rebuild.spec.live_writer import LiveWriterSection, parse_live_writer
from projection_rebuild.spec.notify import NotifySection
from projection_rebuild.spec.programs import ProgramSection
from projection_rebuild.spec.replay import ReplaySection, ThrottleSection
from projection_rebuild.spec.stores import EventStoreSection, ReadModelsSection
from projection_rebuild.spec.structure import StructureSection
from projection_rebuild.spec.windows import LowTrafficSection, StageSection


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
    live_writer: Annotated[LiveWriterSection, BeforeValidator(parse_live_writer)]
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
