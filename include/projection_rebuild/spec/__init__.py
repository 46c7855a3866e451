"""The YAML file and the options of one run, as validated data; the projectors that it names, and their order."""

from projection_rebuild.spec.cutover import RetentionSection, SwapSection, VerifySection
from projection_rebuild.spec.fields import (
    WEEKDAYS,
    ClockTime,
    Duration,
    Flag,
    HoldDuration,
    Moment,
    Percent,
    Section,
    ShardCount,
    Weekday,
    Whole,
    ZoneName,
    parse_duration,
    parse_moment,
)
from projection_rebuild.spec.live_writer import ConsumerTable, LiveWriter, LiveWriterSection, parse_live_writer
from projection_rebuild.spec.load import LoadedSpec, load_spec, load_with_projectors
from projection_rebuild.spec.notify import Notifiers, NotifierSection, NotifySection
from projection_rebuild.spec.options import PARAMETERS, AggregateName, RunOptions
from projection_rebuild.spec.programs import ProgramSection
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry
from projection_rebuild.spec.replay import OnError, ReplaySection, ThrottleSection
from projection_rebuild.spec.stores import EventColumns, EventStoreSection, ReadModelsSection, StreamFormat, TimeUnit
from projection_rebuild.spec.structure import StructureSection
from projection_rebuild.spec.windows import GiveUp, LowTrafficSection, StageSection, Window, Windows, WindowText

__all__ = [
    "PARAMETERS",
    "WEEKDAYS",
    "AggregateName",
    "ClockTime",
    "ConsumerTable",
    "Duration",
    "EventColumns",
    "EventStoreSection",
    "Flag",
    "GiveUp",
    "HoldDuration",
    "LiveWriter",
    "LiveWriterSection",
    "LoadedSpec",
    "LowTrafficSection",
    "Moment",
    "NotifierSection",
    "Notifiers",
    "NotifySection",
    "OnError",
    "Percent",
    "ProgramSection",
    "ProjectorRegistry",
    "ReadModelsSection",
    "RebuildSpec",
    "ReplaySection",
    "RetentionSection",
    "RunOptions",
    "Section",
    "ShardCount",
    "StageSection",
    "StreamFormat",
    "StructureSection",
    "SwapSection",
    "ThrottleSection",
    "TimeUnit",
    "VerifySection",
    "Weekday",
    "Whole",
    "Window",
    "WindowText",
    "Windows",
    "ZoneName",
    "load_spec",
    "load_with_projectors",
    "parse_duration",
    "parse_live_writer",
    "parse_moment",
]
