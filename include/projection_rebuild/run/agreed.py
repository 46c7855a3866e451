"""Detects edits of a spec while a run goes on, and names the edited keys.

The plan records what the run relies on, and later steps compare it with the spec. Windows, limits, tolerances,
retention, notifications and the code of handlers may change. The owners of rows, and the places of rows and events, may
not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.errors import SpecError
from projection_rebuild.ledger import Run
from projection_rebuild.model.limits import shown
from projection_rebuild.model.plan import Plan
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.structure import StructureSection, load_structure

_FREE = {"mapper", "decoder", "wait_for_holes"}
"""Keys of the event store that may change: they name code, or a timeout."""

Projectors = Mapping[str, type[Projector]]


def of(spec: RebuildSpec, projectors: Projectors, chosen: Sequence[str]) -> dict[str, Any]:
    """What a run of these projectors relies on, as JSON values.

    :param projectors: the projectors of the spec
    :param chosen: the names of the run's projectors
    :raises SpecError: the file of a new structure cannot be read
    """
    return {
        "projectors": {name: _of_projector(projectors[name]) for name in chosen if name in projectors},
        "event_store": spec.event_store.model_dump(mode="json", exclude=_FREE),
        "read_models": spec.read_models.model_dump(mode="json"),
        "live_writer": _of_writer(spec, chosen),
        "structure": _of_structure(spec.structure),
    }


def _of_projector(projector: type[Projector]) -> dict[str, Any]:
    partition = projector.partition()
    return {
        "tables": {kind.table: {"key": list(kind.key), "columns": list(kind.columns)} for kind in projector.kinds()},
        "partition_by": None if partition is None else projector.partition_by or "its stream",
    }


def _of_writer(spec: RebuildSpec, chosen: Sequence[str]) -> dict[str, Any]:
    writer, checkpoint = spec.live_writer, spec.live_writer.checkpoint
    keys = checkpoint.model_dump(mode="json", exclude={"names"}) if checkpoint else {}
    names = {f"names.{name}": checkpoint.names.get(name) for name in chosen} if checkpoint else {}
    return {"contract": writer.contract.value, **{f"checkpoint.{key}": value for key, value in {**keys, **names}.items()}}


def _of_structure(structure: StructureSection | None) -> dict[str, Any]:
    if structure is None:
        return {}
    section: dict[str, Any] = structure.model_dump(mode="json", exclude={"ddl"}, exclude_none=True)
    if structure.ddl is not None:
        section |= {
            "ddl": structure.ddl.name,
            "the content of ddl": hashlib.sha256(str(load_structure(structure)).encode()).hexdigest(),
        }
    return section


def edited(spec: RebuildSpec, projectors: Projectors, run: Run) -> list[str]:
    """The edits of the spec since a run was planned that matter to the rest of the run, each in words.

    :raises SpecError: the file of a new structure can no longer be read
    """
    if run.state.is_over:
        return []
    plan = run.plan
    gone = [f"the projector {name} is no longer in it" for name in plan.projectors if name not in projectors]
    before = run.record.agreed
    present = [name for name in plan.projectors if name in projectors]
    if before is None:
        # An earlier version of the engine began the run, and recorded the plan only.
        return gone + ([] if gone else [*_other_tables(plan, projectors)])
    # A rollback does not use the structure, nor does a run whose swap has begun.
    structured = not run.state.has_begun_switch and plan.rolls_back is None
    now = of(spec if structured else spec.model_copy(update={"structure": None}), projectors, present)
    sections = ("event_store", "read_models", "live_writer", *(["structure"] if structured else []))
    edits = gone + [edit for section in sections for edit in _edits_of_section(before, now, section)]
    if not run.state.has_switched:
        edits += [
            edit
            for name in present
            for edit in _edits_of_projector(name, before["projectors"].get(name), now["projectors"][name])
        ]
    return edits


def _other_tables(plan: Plan, projectors: Projectors) -> Iterator[str]:
    owned = {table for name in plan.projectors for table in projectors[name].tables()}
    if owned != set(plan.tables):
        yield f"its projectors own the tables {_listed(owned)} now, not {_listed(plan.tables)}"


def _edits_of_section(before: Mapping[str, Any], now: Mapping[str, Any], section: str) -> Iterator[str]:
    """The edits of a section.

    Outside ``structure``, a key that only one of the two records has is no edit: another version of the engine wrote
    the record.
    """
    was, current = before.get(section, {}), now[section]
    if bool(was) != bool(current):
        yield f"{section} has been {'added' if current else 'taken out'}"
        return
    for key in sorted({*was, *current} if section == "structure" else {*was} & {*current}):
        yield from _edits_of_key(f"{section}.{key}", was.get(key), current.get(key))


def _edits_of_key(key: str, was: Any, current: Any) -> Iterator[str]:
    """The edits of a key and of the keys below it.

    :param key: its path in the spec, with dots
    """
    if isinstance(was, dict) and isinstance(current, dict):
        for below in sorted({*was, *current}):
            yield from _edits_of_key(f"{key}.{below}", was.get(below), current.get(below))
    elif was != current:
        # A message does not show SQL and digests.
        brief = all(
            value is None or isinstance(value, (bool, int)) or (isinstance(value, str) and len(value) < 40)
            for value in (was, current)
        )
        yield f"{key} is {_in_words(current)} now, not {_in_words(was)}" if brief else f"{key} has been changed"


def _in_words(value: Any) -> str:
    return "null" if value is None else shown(value)


def _edits_of_projector(name: str, was: Mapping[str, Any] | None, current: Mapping[str, Any]) -> Iterator[str]:
    """The edits of a projector's tables, keys, columns and partition.

    :param was: what the run recorded of it; None: nothing
    """
    if was is None:
        return
    if {*was["tables"]} != {*current["tables"]}:
        yield f"{name} owns the tables {_listed(current['tables'])} now, not {_listed(was['tables'])}"
        return
    for table, before in was["tables"].items():
        now = current["tables"][table]
        if before["key"] != now["key"]:
            yield f"{name}: the key of {table} is ({', '.join(now['key'])}) now, not ({', '.join(before['key'])})"
        gained = [column for column in now["columns"] if column not in before["columns"]]
        lost = [column for column in before["columns"] if column not in now["columns"]]
        if gained or lost:
            yield f"{name}: its row class of {table} has other columns now:{_changes(gained, lost)}"
    if was["partition_by"] != current["partition_by"]:
        yield f"{name} is divided by {current['partition_by']} now, not by {was['partition_by']}"


def _changes(gained: Sequence[str], lost: Sequence[str]) -> str:
    return ",".join([*([f" {', '.join(gained)} more"] if gained else []), *([f" {', '.join(lost)} gone"] if lost else [])])


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def refusal(run: Run, changed: Sequence[str]) -> SpecError:
    """The error that a step raises when the spec has been edited, with the remedy for the state of the run.

    :param changed: the edits, each in words
    """
    remedy = "or clear `plan` and what follows it, so that the run begins anew with the spec as it is now"
    if run.state.has_switched:
        remedy = "and clear `reconcile`; the new tables are live"
    elif run.state.in_doubt:
        remedy = "and clear `atomic_swap`, which finds out whether the switch that was cut short has happened"
    return SpecError(
        f"the spec has been edited since the run {shown(run.run_id, 100)} was planned: {shown('; '.join(changed), 2_000)}. Put this back as it "
        f"was, {remedy}. This step has touched nothing"
    )
