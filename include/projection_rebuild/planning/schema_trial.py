"""Creates the tables of another structure for a moment, in a place of their own, and checks them."""

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
    """The result of the trial of another structure.

    :param definitions: the new definition by table, in the form of the dialect; empty if no table changes
    :param views: the new definitions of views, by name
    :param difference: the changes to today's structure, a line each
    :param parents: by table, the tables to which its foreign keys will refer
    :param findings: what would not work with the structure, or what an operator should know about it
    """

    definitions: dict[str, str] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    difference: list[str] = field(default_factory=list)
    parents: dict[str, set[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def tried(step: Step, tables: Sequence[TableSet], kinds: Mapping[str, RowType]) -> SchemaChange:
    """Creates the structure that the spec names, and checks it. An error about it is a finding.

    :param tables: the read models of the run that exist
    :param kinds: the row types of the projectors, by table
    :raises sqlalchemy.exc.DBAPIError: a transient error of the database
    """
    section, change = step.spec.structure, SchemaChange()
    if section is None or not tables:
        return change
    try:
        ddl = statements(section, [table.blue for table in tables], step.connection.dialect)
        with step.dialect.trials.try_schema(step.connection, tables, ddl, section.views) as trial:
            for finding in _findings(step, trial, kinds, change):
                change.findings.append(finding)
    except RebuildError as error:
        change.findings.append(refusal_of(error))
    except sa.exc.DBAPIError as error:
        trouble = trouble_of(error)
        if trouble is None or trouble.kind in MAY_PASS:
            raise
        # The tables of the trial are empty, so the database's message can quote the spec, but no value of a row.
        problem = f"the database does not take it: {one_line(str(error.orig))}"
        change.findings.append(refusal("structure", problem, "correct the metadata or the file"))
    return change


def _findings(step: Step, trial: SchemaTrial, kinds: Mapping[str, RowType], change: SchemaChange) -> Iterator[Finding]:
    """The findings about the new tables.

    :param change: gets the definitions, views, parents and differences
    """
    dialect, changed = step.dialect, [name for name in trial.definitions if name not in trial.unchanged]
    if not trial.definitions:
        problem = f"it makes none of the tables {', '.join(sorted(kinds))}"
        yield refusal("structure", problem, "correct it, or take it out of the spec")
    elif not changed:
        # The run then changes no structure, and a rollback can take it back.
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
