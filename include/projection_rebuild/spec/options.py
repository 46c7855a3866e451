"""The options of one run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from projection_rebuild.authoring.parts import Selection
from projection_rebuild.errors import SpecError
from projection_rebuild.model import limits
from projection_rebuild.model.limits import LONGEST, MOST_AGGREGATES
from projection_rebuild.spec.fields import Duration, Flag, Moment, Percent, Section, ShardCount
from projection_rebuild.spec.validation import validate

PARAMETERS = "the run's parameters"
"""The name of the options in messages."""


AggregateName = Annotated[str, Field(min_length=1)]


class RunOptions(Section):
    """The options of one run. The spec decides each option that is null.

    :param projectors: names of the projectors to rebuild; null: all of the spec
    :param rebuild_dependents: rebuild also the projectors that depend on the chosen ones
    :param since: rebuild only the part with events recorded from this time on; without an offset, in the spec's time
        zone
    :param until: rebuild only the part with events recorded before this time
    :param aggregates: rebuild only the part with events of these streams
    :param max_count_drift_percent: the tolerance of the count check for all tables
    :param shards: the number of shards of each projector that can be sharded
    :param keep_old: whether the engine keeps the old tables
    :param drop_after: how long the engine keeps the old tables
    :param approval: whether an operator has to approve the swap
    :param replay_now: do not wait for the windows of stages
    :param swap_now: do not wait for low traffic
    :param dry_run: plan, print the SQL, and stop
    :param reason: the reason for the run, in free words; for the record
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

    def part(self, zone: ZoneInfo) -> Selection | None:
        """The part to rebuild; None: all rows.

        :param zone: the time zone of times without an offset
        :raises SpecError: the part ends before it begins
        """
        if self.since is None and self.until is None and self.aggregates is None:
            return None
        since, until = (
            moment if moment is None or moment.tzinfo else moment.replace(tzinfo=zone) for moment in (self.since, self.until)
        )
        if since is not None and until is not None and since >= until:
            raise SpecError(f"since, until: {since.isoformat()} is not before {until.isoformat()}; correct one of them")
        return Selection(since=since, until=until, aggregates=None if self.aggregates is None else sorted(set(self.aggregates)))

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """The options from a form, ``--conf`` or a REST call.

        :raises SpecError: a field cannot be used; the message names each such field
        """
        return validate(cls, given, PARAMETERS)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Self:
        """The options of a run in the ledger; a run of an earlier version, which had wider limits, may continue."""
        stored = dict(record)
        stored["reason"] = str(stored.get("reason") or "")[: limits.REASON]
        if stored.get("drop_after") is not None:
            # An earlier version wrote long durations as 1.296e+06s.
            seconds = float(str(stored["drop_after"]).removesuffix("s"))
            stored["drop_after"] = timedelta(seconds=min(seconds, LONGEST.total_seconds()))
        return cls.model_validate(stored)
