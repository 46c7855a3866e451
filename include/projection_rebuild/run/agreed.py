"""What a run was planned with, and what its later steps find in the spec. A spec that was edited between two steps is told by name.

Windows, limits, tolerances, retention, who is told, and the code of handlers may change while a run goes on. What says which
rows are whose, and where they and their events are, may not.
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
"""Keys of the event store that name code, or are a patience."""

Projectors = Mapping[str, type[Projector]]


def of(spec: RebuildSpec, projectors: Projectors, chosen: Sequence[str]) -> dict[str, Any]:
    """What a run of these projectors relies on, as JSON.

    :param projectors: those of the spec
    :param chosen: those of the run
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
    told = checkpoint.model_dump(mode="json", exclude={"names"}) if checkpoint else {}
    names = {f"names.{name}": checkpoint.names.get(name) for name in chosen} if checkpoint else {}
    return {"contract": writer.contract.value, **{f"checkpoint.{key}": value for key, value in {**told, **names}.items()}}


def _of_structure(structure: StructureSection | None) -> dict[str, Any]:
    if structure is None:
        return {}
    found: dict[str, Any] = structure.model_dump(mode="json", exclude={"ddl"}, exclude_none=True)
    if structure.ddl is not None:
        found |= {
            "ddl": structure.ddl.name,
            "the content of ddl": hashlib.sha256(str(load_structure(structure)).encode()).hexdigest(),
        }
    return found


def edited(spec: RebuildSpec, projectors: Projectors, run: Run) -> list[str]:
    """What of the spec has been edited since a run was planned, and matters to what it has still to do.

    :raises SpecError: the file of a new structure cannot be read any more
    """
    if run.state.is_over:
        return []
    plan = run.plan
    gone = [f"the projector {name} is no longer in it" for name in plan.projectors if name not in projectors]
    before = run.record.agreed
    there = [name for name in plan.projectors if name in projectors]
    if before is None:
        # An earlier version began the run; the plan is all that is known.
        return gone + ([] if gone else [*_other_tables(plan, projectors)])
    # A rollback has no use for it, nor has a switch that has begun.
    structured = not run.state.has_begun_switch and plan.rolls_back is None
    now = of(spec if structured else spec.model_copy(update={"structure": None}), projectors, there)
    sections = ("event_store", "read_models", "live_writer", *(["structure"] if structured else []))
    found = gone + [each for section in sections for each in _places(before, now, section)]
    if not run.state.has_switched:
        found += [each for name in there for each in _projector(name, before["projectors"].get(name), now["projectors"][name])]
    return found


def _other_tables(plan: Plan, projectors: Projectors) -> Iterator[str]:
    owned = {table for name in plan.projectors for table in projectors[name].tables()}
    if owned != set(plan.tables):
        yield f"its projectors own the tables {_listed(owned)} now, not {_listed(plan.tables)}"


def _places(before: Mapping[str, Any], now: Mapping[str, Any], section: str) -> Iterator[str]:
    """What is different in a section. A key that either version of the engine does not know says nothing."""
    was, found = before.get(section, {}), now[section]
    if bool(was) != bool(found):
        yield f"{section} has been {'added' if found else 'taken out'}"
        return
    for key in sorted({*was, *found} if section == "structure" else {*was} & {*found}):
        yield from _place(f"{section}.{key}", was.get(key), found.get(key))


def _place(place: str, was: Any, found: Any) -> Iterator[str]:
    if isinstance(was, dict) and isinstance(found, dict):
        for key in sorted({*was, *found}):
            yield from _place(f"{place}.{key}", was.get(key), found.get(key))
    elif was != found:
        # SQL and digests are nothing to read in a message.
        brief = all(
            each is None or isinstance(each, (bool, int)) or (isinstance(each, str) and len(each) < 40) for each in (was, found)
        )
        yield f"{place} is {_said(found)} now, not {_said(was)}" if brief else f"{place} has been changed"


def _said(value: Any) -> str:
    return "null" if value is None else shown(value)


def _projector(name: str, was: Mapping[str, Any] | None, found: Mapping[str, Any]) -> Iterator[str]:
    if was is None:
        return
    if {*was["tables"]} != {*found["tables"]}:
        yield f"{name} owns the tables {_listed(found['tables'])} now, not {_listed(was['tables'])}"
        return
    for table, form in was["tables"].items():
        now = found["tables"][table]
        if form["key"] != now["key"]:
            yield f"{name}: the key of {table} is ({', '.join(now['key'])}) now, not ({', '.join(form['key'])})"
        gained, lost = (
            [each for each in one if each not in other]
            for one, other in ((now["columns"], form["columns"]), (form["columns"], now["columns"]))
        )
        if gained or lost:
            yield f"{name}: its row class of {table} has other columns now:{_changes(gained, lost)}"
    if was["partition_by"] != found["partition_by"]:
        yield f"{name} is divided by {found['partition_by']} now, not by {was['partition_by']}"


def _changes(gained: Sequence[str], lost: Sequence[str]) -> str:
    return ",".join([*([f" {', '.join(gained)} more"] if gained else []), *([f" {', '.join(lost)} gone"] if lost else [])])


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def refusal(run: Run, changed: Sequence[str]) -> SpecError:
    """What a step says that finds the spec edited."""
    remedy = "or clear `plan` and what follows it, so that the run begins anew with the spec as it is now"
    if run.state.has_switched:
        remedy = "and clear `reconcile`; the new tables are live"
    elif run.state.in_doubt:
        remedy = "and clear `atomic_swap`, which finds out whether the switch that was cut short has happened"
    return SpecError(
        f"the spec has been edited since the run {shown(run.run_id, 100)} was planned: {shown('; '.join(changed), 2_000)}. Put this back as it "
        f"was, {remedy}. This step has touched nothing"
    )
