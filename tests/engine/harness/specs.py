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

    :param changes: keys that are otherwise, each as a whole
    """
    return RebuildSpec.model_validate(SPEC | changes)


def rebuild(engine: sa.Engine, run_id: str = "run", log: Callable[[str], None] = lambda _: None, **changes: Any) -> Rebuild:
    """A run of the shop's spec whose event store and read models are in one database; see :func:`spec`."""
    return Rebuild(spec(**changes), run_id=run_id, event_store=engine, read_models=engine, log=log)


def projectors_of(rebuild: Rebuild, **instead: type[Projector] | None) -> Rebuild:
    """The same run with other code: each projector that is named is another class, or none."""
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
"""A spec of one projector, as a file has it."""

ALONE = {"projectors": [each for each in SPEC["projectors"] if "Line" not in each]}
"""For :func:`spec`: the projectors whose tables no other table refers to."""
