"""The modules of version 0.1 of the engine that have moved, with their new places. Old names work until version 0.3.

If a package now has the name of an old module, :func:`names_of` gives it that module's names.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from warnings import warn

MOVED: dict[str, str] = {
    "agreed": "run.agreed",
    "ahead": "replay.prefetch",
    "boundary": "errors.boundary",
    "bulk": "rows.bulk",
    "check": "checking.check",
    "clone": "shadow.clone",
    "column_kinds": "model.column_kinds",
    "comparison": "checking.comparison",
    "context": "run.context",
    "control": "run.signals",
    "dialects.base.outcomes": "errors.outcomes",
    "dialects.mariadb_keepers": "dialects.mariadb.sentries",
    "dialects.mysql": "dialects.mysql.dialect",
    "dialects.mysql_carried": "dialects.mysql.dependents",
    "dialects.mysql_connection": "dialects.mysql.connection",
    "dialects.mysql_grants": "dialects.mysql.grants",
    "dialects.mysql_hanging": "dialects.mysql.hanging",
    "dialects.mysql_moment": "dialects.mysql.moment",
    "dialects.mysql_preflight": "dialects.mysql.preflight",
    "dialects.mysql_rehearsal": "dialects.mysql.rename_time",
    "dialects.mysql_session": "dialects.mysql.session",
    "dialects.mysql_structure": "dialects.mysql.target_schema",
    "dialects.mysql_text": "dialects.mysql.create_table",
    "dialects.mysql_trouble": "errors.mysql",
    "dialects.postgres": "dialects.postgres.dialect",
    "dialects.postgres_apart": "dialects.postgres.apart",
    "dialects.postgres_carried": "dialects.postgres.dependents",
    "dialects.postgres_catalog": "dialects.postgres.catalog",
    "dialects.postgres_clone": "dialects.postgres.shadow",
    "dialects.postgres_connection": "dialects.postgres.connection",
    "dialects.postgres_dump": "dialects.postgres.dump",
    "dialects.postgres_hanging": "dialects.postgres.hanging",
    "dialects.postgres_limits": "dialects.postgres.unsupported",
    "dialects.postgres_preflight": "dialects.postgres.preflight",
    "dialects.postgres_rehearsal": "dialects.postgres.schema_trial",
    "dialects.postgres_session": "dialects.postgres.session",
    "dialects.postgres_structure": "dialects.postgres.target_schema",
    "dialects.postgres_switch": "dialects.postgres.cutover",
    "dialects.postgres_trouble": "errors.postgres",
    "dialects.session": "dialects.base.settings",
    "dialects.sqlite": "dialects.sqlite.dialect",
    "dialects.sqlite_preflight": "dialects.sqlite.preflight",
    "dialects.sqlite_rehearsal": "dialects.sqlite.schema_trial",
    "dialects.sqlite_session": "dialects.sqlite.session",
    "dialects.sqlite_switch": "dialects.sqlite.cutover",
    "dialects.sqlite_text": "dialects.sqlite.create_table",
    "dialects.sqlite_trouble": "errors.sqlite",
    "dialects.trouble": "errors.drivers",
    "event_columns": "eventstore.columns",
    "event_contract": "eventstore.contract",
    "event_decoding": "eventstore.decoding",
    "event_store": "eventstore.store",
    "events": "authoring.events",
    "external": "authoring.external",
    "external_replay": "replay.external.replay",
    "findings": "model.findings",
    "fingerprint": "authoring.fingerprint",
    "fitting": "rows.fitting",
    "forecast": "planning.estimate",
    "fresh_proof": "verification.fresh_proof",
    "gate": "cutover.gate",
    "guard": "replay.external.supervisor",
    "housekeeping": "operations.housekeeping",
    "jobs": "run.jobs",
    "limits": "model.limits",
    "live": "replay.inline",
    "live_tables": "shadow.live_tables",
    "lockstep": "replay.catch_up",
    "low_traffic": "traffic.low_traffic",
    "memory": "replay.memory",
    "names": "model.names",
    "overview": "operations.status",
    "ownership": "replay.shard_ownership",
    "partial": "replay.partial",
    "partition": "authoring.partition",
    "parts": "authoring.parts",
    "plan": "model.plan",
    "planning": "planning.planner",
    "positions": "model.positions",
    "preflight": "planning.preflight",
    "presets": "spec.presets",
    "program": "replay.external.process",
    "progress": "run.progress",
    "projector": "authoring.projector",
    "pyeventsourcing": "eventstore.pyeventsourcing",
    "raw_events": "verification.raw_events",
    "reading": "replay.foreign_reads",
    "reconcile": "cutover.reconcile",
    "record": "run.record",
    "refold": "verification.refold",
    "replay": "replay.projector_replay",
    "report": "run.report",
    "retire": "shadow.retire",
    "rollback": "cutover.rollback",
    "sample": "verification.sample",
    "second_opinion": "verification.second_opinion",
    "sets": "replay.set_based",
    "shapes": "rows.shapes",
    "shards": "replay.shards",
    "spec_file": "spec.file",
    "stages": "replay.stages",
    "structure": "planning.schema_change",
    "swap": "cutover.swap",
    "tables": "replay.row_tables",
    "throttle": "traffic.throttle",
    "trouble": "errors.trouble",
    "upcasting": "authoring.upcasting",
    "values": "rows.values",
    "verify": "verification.verify",
    "ways": "checking.ways",
}
"""Old module -> new module, both without the name of the root package."""


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that was a module in version 0.1.

    :param package: the name of the package, without the root package
    :param module: the module that has the names now, without the root package
    """
    root = __name__.rpartition(".")[0]

    def moved_name(name: str) -> Any:
        # Python imports a module of the package itself.
        if not name.startswith("__") and find_spec(f"{root}.{package}.{name}") is None:
            new_module = import_module(f"{root}.{module}")
            if hasattr(new_module, name):
                warn(f"{root}.{package}.{name} is in {root}.{module} now", DeprecationWarning, stacklevel=2)
                return getattr(new_module, name)
        raise AttributeError(f"module '{root}.{package}' has no attribute {name!r}")

    return moved_name
