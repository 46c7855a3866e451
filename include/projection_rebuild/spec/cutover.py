"""What is checked before a switch, the switch, and what stays after it: ``verify``, ``swap`` and ``retention``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from projection_rebuild.model.limits import MOST_SAMPLED
from projection_rebuild.spec.fields import Duration, Flag, HoldDuration, Percent, Section, Whole


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
