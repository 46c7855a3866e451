"""Makes the tables of another structure apart and for a moment, and looks whether everything would work with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from projection_rebuild.dialects.base import SchemaTrial
from projection_rebuild.errors import RebuildError
from projection_rebuild.errors.drivers import one_line, trouble_of
from projection_rebuild.errors.trouble import MAY_PASS
from projection_rebuild.model.findings import Finding, refusal, refusal_of
from projection_rebuild.model.names import TableSet
from projection_rebuild.planning.row_classes import lacking, spelled_alike
from projection_rebuild.planning.schema_change import difference, statements
from projection_rebuild.rows.types import RowType
from projection_rebuild.run.step import Step


@dataclass
class SchemaChange:
    """What was seen of the structure that the spec names.

    :param definitions: by table, as the dialect keeps it; empty where the tables stay as they are
    :param views: defined anew with it, by name
    :param difference: from today's structure, a line each
    :param parents: by table, those that its foreign keys will point to
    :param findings: what would not work with it, or that a person should know
    """

    definitions: dict[str, str] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    difference: list[str] = field(default_factory=list)
    parents: dict[str, set[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def tried(step: Step, tables: Sequence[TableSet], kinds: Mapping[str, RowType]) -> SchemaChange:
    """Tries the structure that the spec names.

    :param tables: read models of the run that exist
    :param kinds: what projectors write, by table
    :raises sqlalchemy.exc.DBAPIError: an error of the database that may pass
    """
    section, change = step.spec.structure, SchemaChange()
    if section is None or not tables:
        return change
    try:
        made = statements(section, [table.blue for table in tables], step.connection.dialect)
        with step.dialect.trials.try_schema(step.connection, tables, made, section.views) as trial:
            for finding in _looked_at(step, trial, kinds, change):
                change.findings.append(finding)
    except RebuildError as error:
        change.findings.append(refusal_of(error))
    except sa.exc.DBAPIError as error:
        trouble = trouble_of(error)
        if trouble is None or trouble.kind in MAY_PASS:
            raise
        # The tables are made apart and are empty: what the database says quotes the author's own words, and no row.
        problem = f"the database does not take it: {one_line(str(error.orig))}"
        change.findings.append(refusal("structure", problem, "correct the metadata or the file"))
    return change


def _looked_at(step: Step, trial: SchemaTrial, kinds: Mapping[str, RowType], change: SchemaChange) -> Iterator[Finding]:
    dialect, changed = step.dialect, [name for name in trial.definitions if name not in trial.unchanged]
    if not trial.definitions:
        problem = f"it makes none of the tables {', '.join(sorted(kinds))}"
        yield refusal("structure", problem, "correct it, or take it out of the spec")
    elif not changed:
        # Then nothing is done about it, and such a run can be taken back.
        yield Finding(about="structure", problem="the tables have it already", remedy="take it out of the spec")
        return
    change.definitions, change.views = {name: trial.definitions[name] for name in changed}, trial.views
    yield from trial.refusals
    for name in changed:
        unique = dialect.inspector.unique_keys(trial.connection, trial.schema, name)
        yield from lacking(kinds[name], dialect.inspector.columns(trial.connection, trial.schema, name), unique)
        yield from spelled_alike(kinds[name], unique, dialect.inspector.shapes(trial.connection, trial.schema, name))
        change.parents[name] = dialect.dependents.parents(trial.connection, trial.schema, name)
    change.difference = difference(step.connection, step.schema, trial, changed)
