"""The shop's spec, and runs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from projection_rebuild.authoring.projector import Projector
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.rebuild import RebuildSpec
from projection_rebuild.spec.registry import ProjectorRegistry

PROJECTORS = ["OrderProjector", "OrderLineProjector", "CustomerTotalProjector"]
SPEC: dict[str, Any] = {
    "rebuild": "shop",
    "event_store": {"conn_id": "db"},
    "read_models": {"conn_id": "db"},
    "projectors": [f"tests.engine.harness.shop:{name}" for name in PROJECTORS],
    "live_writer": "transactional",
    "replay": {"batch_events": 100},
}


def spec(**changes: Any) -> RebuildSpec:
    """The shop's spec.

    :param changes: new values of top-level keys; each replaces the whole value
    """
    return RebuildSpec.model_validate(SPEC | changes)


def rebuild(engine: sa.Engine, run_id: str = "run", log: Callable[[str], None] = lambda _: None, **changes: Any) -> Rebuild:
    """A run of the shop's spec, with event store and read models in one database.

    :param changes: see :func:`spec`
    """
    return Rebuild(spec(**changes), run_id=run_id, event_store=engine, read_models=engine, log=log)


def projectors_of(rebuild: Rebuild, **instead: type[Projector] | None) -> Rebuild:
    """Changes the code of a run.

    :param instead: new classes of projectors, by name; None removes the projector
    :returns: the same run
    """
    known = dict(rebuild._context.projectors)
    for name, projector in instead.items():
        known.pop(name)
        if projector is not None:
            known[projector.name()] = projector
    rebuild._context = replace(rebuild._context, projectors=ProjectorRegistry(known))
    return rebuild


PLAIN = """\
rebuild: shop
event_store: {conn_id: db}
read_models: {conn_id: db}
projectors: ["tests.engine.harness.shop:OrderProjector"]
live_writer: transactional
"""
"""The text of a spec file with one projector."""

ALONE = {"projectors": [projector for projector in SPEC["projectors"] if "Line" not in projector]}
"""A change for :func:`spec`: only projectors whose tables have no foreign keys to each other."""
