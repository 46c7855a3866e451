"""The top level of a spec file."""

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
    """Whether a cron expression is valid and ever fires.

    At one that never does, such as the 31st of February, Airflow would load no DAG of the file.
    """
    try:
        return bool(croniter.is_valid(schedule) and croniter(schedule, datetime(2000, 1, 1, tzinfo=UTC)).get_next(float))
    except CroniterError:
        return False


class RebuildSpec(Section):
    """One spec file: which projectors to rebuild, from which event store, when, and within which limits.

    :param rebuild: the name of the rebuild: letters, digits, ``_`` and ``-``
    :param schedule: a cron expression; null: manual runs only
    :param timezone: the time zone of the schedule and of the windows
    :param event_store: the event store to read
    :param read_models: the database with the tables to rebuild
    :param projectors: ``package.module:Class`` of each projector, or an external program
    :param live_writer: how the application writes blue
    :param verify: the conditions that green must meet
    :param low_traffic: when the swap may happen
    :param swap: limits of the cutover
    :param retention: how long the engine keeps the old tables
    :param notify: which notifiers to call for which event
    :param deadline: the time within which a run has to swap, from the moment when Airflow queues it
    :param replay: how the engine replays events
    :param throttle: when a replay slows down
    :param stages: the stages of a rebuild over several nights
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
        """The stage of a projector; None: it has no stage."""
        return next((stage for stage in self.stages if projector in stage.projectors), None)

    def begins_at_once(self, projector: str) -> bool:
        """Whether a projector is in the first stage or in none, so that its replay waits for no other stage."""
        return self.stage_of(projector) in (None, *self.stages[:1])
