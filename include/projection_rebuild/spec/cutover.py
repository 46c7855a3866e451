"""The sections for verification, cutover and the old tables: ``verify``, ``swap`` and ``retention``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from projection_rebuild.model.limits import MOST_SAMPLED
from projection_rebuild.spec.fields import Duration, Flag, HoldDuration, Percent, Section, Whole


class VerifySection(Section):
    """The conditions that green must meet before it may replace blue.

    :param max_count_drift_percent: the largest difference of a table's row count from blue's, in percent of blue's
    :param tables: other tolerances for single tables
    :param max_dead_letters: the most dead letters of a run that may still swap
    :param sample: how many aggregates of each projector the engine refolds with its handlers and compares with green;
        0: none
    :param sample_every: how often the engine takes another sample while the run waits for its swap; 0s: never
    :param assertions: SQL that must return no row, or 0, on green; ``{table}`` stands for a table's green name
    """

    max_count_drift_percent: Percent = 5.0
    tables: dict[str, Percent] = {}
    max_dead_letters: Whole = Field(default=0, ge=0)
    sample: Whole = Field(default=1_000, ge=0, le=MOST_SAMPLED)
    sample_every: Duration = timedelta(minutes=10)
    assertions: tuple[str, ...] = ()


class SwapSection(Section):
    """Bounds of the cutover.

    :param max_pause: the longest time that writers may wait; after it the engine undoes the attempt. On MySQL and
        MariaDB the engine refuses a plan if a RENAME of so many tables takes longer
    :param lock_timeout: the longest wait for the locks in one attempt; readers queue behind a waiting lock
    :param attempts: the number of attempts before the task fails; with the waits between them, about two minutes in all
    :param small_backlog: the number of outstanding events below which the cutover begins
    :param wait_for_snapshots: how long to wait for transactions whose snapshot is older than the green tables; after
        the swap they would see these tables empty. 0s: do not wait
    :param approval: whether an operator has to approve the swap after the verification
    :param approval_timeout: how long to wait for the approval; null: without a limit
    """

    max_pause: HoldDuration = timedelta(seconds=2)
    lock_timeout: HoldDuration = timedelta(milliseconds=100)
    attempts: Whole = Field(default=100, ge=1)
    small_backlog: Whole = Field(default=500, ge=1)
    wait_for_snapshots: Duration = timedelta(seconds=60)
    approval: Flag = False
    approval_timeout: Duration | None = None


class RetentionSection(Section):
    """How long the engine keeps the old tables: until ``drop_after``, or not at all.

    :param keep_old: whether the engine keeps the old tables; if not, it drops them right after the swap
    :param drop_after: how long the engine keeps the old tables after the swap
    :param keep_green: how long the engine keeps green tables that never went live, for inspection after their run has
        ended
    """

    keep_old: Flag = True
    drop_after: Duration = timedelta(hours=72)
    keep_green: Duration = timedelta(hours=72)
