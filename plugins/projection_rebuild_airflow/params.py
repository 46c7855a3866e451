"""The trigger form: builds Airflow's params from a spec, and turns the params of a run into checked options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from projection_rebuild.api import (
    AGGREGATE,
    MOST_AGGREGATES,
    MOST_SHARDS,
    NAME,
    PARAMETERS,
    REASON,
    RUN_ID,
    ProjectorRegistry,
    RebuildSpec,
    RunOptions,
    SpecError,
    check,
    word,
)

WHAT, HOW, AFTER = "What is rebuilt", "How it is checked and switched", "Afterwards"
"""The sections of the form."""

ONLY_LIST = "only_list"
"""The param of housekeeping."""


def form(spec: RebuildSpec, projectors: ProjectorRegistry) -> dict[str, Param]:
    """The params of a spec's DAG. A scheduled run and a trigger without changes use their defaults."""
    names = projectors.order()
    labels = {name: f"{name}: {', '.join(projectors[name].tables())}" for name in names}
    return {
        "projectors": Param(
            names,
            type=["array", "null"],
            items={"type": "string", "enum": names},
            examples=names,
            values_display=labels,
            title="Projectors",
            description_md="Whose tables are rebuilt. At least one; all of them by default.",
            section=WHAT,
        ),
        "rebuild_dependents": Param(
            False,
            type="boolean",
            title="Also those that depend on them",
            description_md="Adds every projector that depends on a chosen one, directly or not.",
            section=WHAT,
        ),
        **_part(spec),
        **_reason_and_dry_run(WHAT),
        "max_count_drift_percent": Param(
            None,
            type=["number", "null"],
            minimum=0,
            maximum=100,
            title="Count tolerance in percent",
            description_md=(
                "How far each table's row count may be from the live one. Empty: as the spec says "
                f"({spec.verify.max_count_drift_percent:g} %)."
            ),
            section=HOW,
        ),
        "approval": Param(
            spec.swap.approval,
            type="boolean",
            title="Ask before the switch",
            description_md="Waits after verification until a person has read the comparison and approves the switch, or rejects it.",
            section=HOW,
        ),
        **_replay_now(spec),
        "shards": Param(
            None,
            type=["integer", "null"],
            minimum=1,
            maximum=MOST_SHARDS,
            title="Shards",
            description_md="Into how many parallel tasks each projector that can be divided is replayed. Empty: as the spec says.",
            section=HOW,
        ),
        "swap_now": Param(
            False,
            type="boolean",
            title="Swap now",
            description_md="Switches as soon as verification has passed, without waiting for low traffic.",
            section=HOW,
        ),
        **_retention(spec),
    }


def _replay_now(spec: RebuildSpec) -> dict[str, Param]:
    if not spec.stages:
        return {}
    stages = ", ".join(stage.name for stage in spec.stages)
    return {
        "replay_now": Param(
            False,
            type="boolean",
            title="Replay now",
            description_md=f"Goes through the stages ({stages}) without waiting for their windows.",
            section=HOW,
        )
    }


def rollback_form(spec: RebuildSpec) -> dict[str, Param]:
    """The params of a spec's rollback. A trigger without changes takes the last swap back at once."""
    what = "What is taken back"
    return {
        "run": Param(
            None,
            type=["string", "null"],
            maxLength=RUN_ID,
            title="Run whose switch is taken back",
            description_md=f"As the ledger names it, such as `rebuild_{spec.rebuild}/manual__...`. Empty: the last one. Taking back a rollback goes forward again.",
            section=what,
        ),
        **_reason_and_dry_run(what),
        "swap_now": Param(
            True,
            type="boolean",
            title="Swap now",
            description_md="Switches as soon as the old tables are up to date; otherwise waits for low traffic.",
            section=HOW,
        ),
        **_retention(spec),
    }


def housekeeping_form() -> dict[str, Param]:
    """The params of the housekeeping DAG."""
    return {
        ONLY_LIST: Param(False, type="boolean", title="Only list", description_md="Lists the leftovers, and removes nothing.")
    }


def _part(spec: RebuildSpec) -> dict[str, Param]:
    rest = "All other rows are copied from the live tables."
    # Airflow's server does not check the format; RunOptions does.
    moment: dict[str, Any] = {"type": ["string", "null"], "format": "date-time", "maxLength": NAME, "section": WHAT}
    return {
        "since": Param(
            None,
            title="Only since",
            description_md="Rebuilds only what events recorded from here on concern: all rows of their aggregates, or all periods from "
            # Plain text without backticks: the boxes that Airflow draws around code cover the line above.
            f"here on. {rest} Such as 2026-01-31 or 2026-01-31T22:00:00+01:00; without an offset, in {spec.timezone}.",
            **moment,
        ),
        "until": Param(
            None, title="Only until", description_md="Events recorded before here only. Empty: to the last.", **moment
        ),
        "aggregates": Param(
            None,
            type=["array", "null"],
            items={"type": "string", "minLength": 1, "maxLength": AGGREGATE},
            maxItems=MOST_AGGREGATES,
            title="Only these aggregates",
            description_md=f"Their stream ids, one a line: rebuilds the rows of these only. {rest}",
            section=WHAT,
        ),
    }


def _reason_and_dry_run(section: str) -> dict[str, Param]:
    return {
        "reason": Param(
            "",
            type=["string", "null"],
            maxLength=REASON,
            title="Why",
            description_md="For the record; free words.",
            section=section,
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description_md="Shows the plan with the exact SQL in the log of `plan`, touches nothing, and stops.",
            section=section,
        ),
    }


def _retention(spec: RebuildSpec) -> dict[str, Param]:
    return {
        "keep_old": Param(
            spec.retention.keep_old,
            type="boolean",
            title="Keep the old tables",
            description_md="Keeps the retired tables as `<table>_old` for a while; otherwise they are dropped right after the switch.",
            section=AFTER,
        ),
        "drop_after": Param(
            None,
            type=["string", "null"],
            maxLength=NAME,
            title="Drop the old tables after",
            description_md=f"Such as `90m`, `12h` or `3d`. Empty: as the spec says ({spec.retention.drop_after}).",
            section=AFTER,
        ),
    }


def options_from(params: Mapping[str, Any]) -> RunOptions:
    """The options of a run, from params of the form, the command line or REST.

    :raises SpecError: a field is invalid, or no projector is chosen
    """
    values = _filled(params)
    check(values, PARAMETERS)
    # An emptied selection arrives as null. It means no choice, and never "all" or "nothing to do".
    if not values.get("projectors"):
        raise SpecError("projectors: none is chosen; choose at least one")
    return RunOptions.parse(values)


def rollback_options_from(params: Mapping[str, Any]) -> tuple[RunOptions, str | None]:
    """The options of a rollback, and the run whose swap it takes back (None: the last one).

    :raises SpecError: a field is invalid
    """
    values = _filled(params)
    run = values.pop("run", None)
    return RunOptions.parse(values), None if run is None else word(run, "run", most=RUN_ID, lines=False)


def _filled(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value not in (None, "", [])}
