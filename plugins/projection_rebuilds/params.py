"""The trigger form: Airflow's params made from a spec, and a run's params checked and turned into options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from include.projection_rebuild.errors import SpecError
from include.projection_rebuild.plan import order
from include.projection_rebuild.spec import RebuildSpec, RunOptions


def form(spec: RebuildSpec) -> dict[str, Param]:
    """The params of a spec's DAG. Their defaults are what the schedule uses and a plain Trigger means."""
    projectors = spec.load_projectors()
    names = order(projectors)
    labels = {name: f"{name}: {', '.join(projectors[name].tables())}" for name in names}
    what, how, after = "What is rebuilt", "How it is checked and switched", "Afterwards"
    return {
        "projectors": Param(
            names,
            type=["array", "null"],
            items={"type": "string", "enum": names},
            examples=names,
            values_display=labels,
            title="Projectors",
            description_md="Whose tables are rebuilt. At least one; all of them by default.",
            section=what,
        ),
        "rebuild_dependents": Param(
            False,
            type="boolean",
            title="Also those that depend on them",
            description_md="Adds every projector that depends on a chosen one, directly or not.",
            section=what,
        ),
        "reason": Param(
            "", type=["string", "null"], maxLength=500, title="Why", description_md="For the record; free words.", section=what
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description_md="Shows the plan with the exact SQL in the log of `plan`, touches nothing, and stops.",
            section=what,
        ),
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
            section=how,
        ),
        "swap_now": Param(
            False,
            type="boolean",
            title="Swap now",
            description_md="Switches as soon as verification has passed, without waiting for low traffic.",
            section=how,
        ),
        "keep_old": Param(
            spec.retention.keep_old,
            type="boolean",
            title="Keep the old tables",
            description_md="Keeps the retired tables as `<table>_old` for a while; otherwise they are dropped right after the switch.",
            section=after,
        ),
        "drop_after": Param(
            None,
            type=["string", "null"],
            title="Drop the old tables after",
            description_md=f"Such as `90m`, `12h` or `3d`. Empty: as the spec says ({spec.retention.drop_after}).",
            section=after,
        ),
    }


def options_from(params: Mapping[str, Any]) -> RunOptions:
    """The options of a run, whatever way its params came: form, command line or REST.

    :raises SpecError: a field that cannot be used, or no projector chosen
    """
    given = {name: value for name, value in params.items() if value not in (None, "")}
    # An emptied selection arrives as null: that is no choice, and never "all" or "nothing to do".
    if not given.get("projectors"):
        raise SpecError("projectors: none is chosen; choose at least one")
    return RunOptions.parse(given)
