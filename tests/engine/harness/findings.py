"""The findings of a plan against a database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from projection_rebuild.model.findings import Finding
from projection_rebuild.planning.checks.input import PreflightInput
from projection_rebuild.planning.preflight import preflight
from projection_rebuild.run.step import open_step
from projection_rebuild.spec.options import RunOptions
from tests.engine.harness import shop
from tests.engine.harness.databases import execute, of_mariadb
from tests.engine.harness.shop import events
from tests.engine.harness.specs import rebuild


def findings_of(engine: sa.Engine, options: RunOptions | None = None, **changes: Any) -> list[Finding]:
    """The findings of a plan of the shop's rebuild.

    :param changes: changed keys of the spec
    """
    made, options = rebuild(engine, **changes), options or RunOptions()
    context = made._context
    with open_step(context) as step:
        findings = preflight(PreflightInput(step, options, options.part(context.spec.zone)))
    made.close()
    return findings


def matching(findings: list[Finding], *words: str) -> Finding:
    """The only finding whose text contains all of these words."""
    (finding,) = [finding for finding in findings if all(word in str(finding) for word in words)]
    return finding


def filled(engine: sa.Engine) -> None:
    """Creates and fills a shop, in a database without findings against a rebuild."""
    if engine.dialect.name == "sqlite":
        execute(engine, "PRAGMA journal_mode = WAL")
    elif engine.dialect.name == "mysql":
        # A collation in which blanks at the end of a text count.
        collation = "utf8mb4_nopad_bin" if of_mariadb(engine) else "utf8mb4_0900_bin"
        execute(engine, f"ALTER DATABASE {engine.url.database} CHARACTER SET utf8mb4 COLLATE {collation}")
    shop.fill(engine, events(200))
