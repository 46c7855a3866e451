"""Tries the dependent objects of live tables on trial tables of another structure, to find those that would break.

All statements run in the transaction that created the trial tables, and are rolled back with it. None of them locks a live table against
writers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from projection_rebuild.dialects.postgres.catalog import MATERIALIZED_VIEW, Catalog, Relation, View, full_name, ident
from projection_rebuild.dialects.postgres.cutover import Switch
from projection_rebuild.dialects.postgres.target_schema import PLACE, search_path
from projection_rebuild.model.findings import Finding, refusal

_SAVEPOINT = "projection_rebuild"


class DependentsTrial:
    """One trial of all dependent objects.

    :param execute: executes a statement unchanged
    :param switch: the swap of the live tables with their new structures
    :param schema: the schema of the live tables
    :param views: new queries for views, by the view's name
    """

    def __init__(
        self, catalog: Catalog, execute: Callable[[str], Any], switch: Switch, schema: str | None, views: Mapping[str, str]
    ) -> None:
        self._catalog = catalog
        self._execute = execute
        self._switch = switch
        self._schema = schema
        self._views = views
        self._formed = [moved for moved in switch.moved if moved.names.target_schema]
        self._apart = {moved.blue.oid: moved.blue for moved in self._formed}
        # Read before the trial begins, since the catalogs would show its objects too.
        self._over = [view for view in switch.all_views if view.relation.persistence != "t"]
        self._elsewhere = [
            *((rule.name, rule.relation, rule.definition) for rule in switch.rules_elsewhere),
            *((policy.name, policy.relation, switch.created(policy)) for policy in switch.policies_elsewhere),
        ]
        self._children = [key for key in catalog.foreign_keys([*self._apart]) if key.child_oid not in self._apart]
        self.new_queries: dict[str, str] = {}
        """The new queries of views, with every name qualified; complete after :meth:`refusals` is exhausted."""

    def refusals(self) -> Iterator[Finding]:
        """Refuses each dependent object that would not work with the new structure, with the remedy."""
        yield from self._of_views()
        yield from self._of_tables()
        yield from self._of_others()
        yield from self._of_children()

    def _of_views(self) -> Iterator[Finding]:
        known = {self._named(view.relation) for view in self._over}
        for name in sorted(self._views.keys() - known):
            yield refusal("structure.views", f"there is no view {name} over these tables", "correct its name")
        for view in self._over:
            yield from self._of_view(view)

    def _of_view(self, view: View) -> Iterator[Finding]:
        name = self._named(view.relation)
        copy = full_name(PLACE, view.relation.name)
        columns = ", ".join(map(ident, view.columns))
        given = self._views.get(name)
        # A user's query resolves names as in a session of the engine. The server's definitions have every name qualified.
        self._execute(
            f"SET LOCAL search_path = {search_path(self._catalog, self._schema)}" if given else "SET LOCAL search_path = ''"
        )
        problem = self._problem(f"CREATE VIEW {copy} ({columns}) AS {given or self._on_trial_tables(view.definition)}")
        self._execute("SET LOCAL search_path = ''")
        problem = problem or self._changed(view)
        if problem:
            yield refusal(
                f"the view {name}",
                f"it would not work with the new structure ({problem})",
                "give a query for it in structure.views, with the columns and types that it has",
            )
            return
        if given:
            (stored_query,) = self._catalog.rows("SELECT rtrim(pg_catalog.pg_get_viewdef(%s::pg_catalog.regclass), '; ')", copy)
            self.new_queries[name] = _outside_texts(
                rf"(?<![\w.\"]){PLACE}(?=\.)", ident(self._schema or ""), str(stored_query[0])
            )
        if view.relation.kind == MATERIALIZED_VIEW:
            self._apart[view.relation.oid] = view.relation

    def _changed(self, view: View) -> str | None:
        """Why CREATE OR REPLACE VIEW would fail: a new query must keep all columns, and may only add some at the end."""
        copy = self._catalog.find(PLACE, view.relation.name)
        if copy is None:
            return None
        before, after = (
            [(c.name, c.type, c.collation) for c in self._catalog.columns(oid)] for oid in (view.relation.oid, copy.oid)
        )
        if view.relation.kind == MATERIALIZED_VIEW and len(before) != len(after):
            return "it would have other columns"
        for (name, kind, collation), (_, new, collated) in zip(before, after, strict=False):
            if (kind, collation) != (new, collated):
                return f"its column {name} would change from {kind} to {new}"
        return None

    def _of_tables(self) -> Iterator[Finding]:
        for moved in self._formed:
            for statement in self._switch.attach(moved):
                # These only follow a statement that creates an object, and can fail only if that one failed.
                if statement.startswith(("COMMENT ", "ALTER TABLE ")):
                    continue
                if problem := self._problem(self._on_trial_tables(statement)):
                    yield refusal(
                        moved.names.blue,
                        f"what hangs on it would not work with the new structure ({problem}): {statement}",
                        "drop it before the rebuild, and make one for the new structure after",
                    )

    def _of_others(self) -> Iterator[Finding]:
        for name, relation, statement in self._elsewhere:
            self._stand_in(self._catalog.named(relation))
            if problem := self._problem(self._on_trial_tables(statement)):
                reason = f"it would not work with the new structure ({problem})"
                yield refusal(f"{name} of {relation}", reason, "change or drop it before the rebuild")

    def _of_children(self) -> Iterator[Finding]:
        for key in self._children:
            self._stand_in(self._catalog.relation(key.child_oid))
            if problem := self._problem(
                self._on_trial_tables(f"ALTER TABLE {key.child} ADD CONSTRAINT {ident(key.name)} {key.definition}")
            ):
                reason = f"its foreign key {key.name} would not fit the new structure ({problem})"
                yield refusal(key.child, reason, "keep what it points to")

    def _stand_in(self, relation: Relation) -> None:
        """Creates an empty copy of a table outside the new structure."""
        if relation.oid not in self._apart:
            self._problem(f"CREATE TABLE {full_name(PLACE, relation.name)} (LIKE {relation.full_name})")
            self._apart[relation.oid] = relation

    def _named(self, relation: Relation) -> str:
        return relation.name if relation.schema == self._schema else f"{relation.schema}.{relation.name}"

    def _on_trial_tables(self, statement: str) -> str:
        """The statement with the names of the trial tables instead of the live ones."""
        for relation in self._apart.values():
            name = r"\.".join(map(_spelled, (relation.schema, relation.name)))
            statement = _outside_texts(rf"(?<![\w.\"]){name}(?![\w\"])", full_name(PLACE, relation.name), statement)
        return statement

    def _problem(self, statement: str) -> str | None:
        """Executes a statement; the server's message if it fails. A failed statement leaves nothing behind."""
        self._execute(f"SAVEPOINT {_SAVEPOINT}")
        try:
            self._execute(statement)
        except sa.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            self._execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            return str(error.orig).splitlines()[0]
        self._execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        return None


def _spelled(name: str) -> str:
    """A pattern for a name as the catalogs or the engine write it: with or without quotes."""
    quoted = re.escape(ident(name))
    return rf"(?:{quoted}|{re.escape(name)})" if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted


def _outside_texts(pattern: str, new: str, statement: str) -> str:
    either = re.compile(rf"({pattern})|'(?:[^']|'')*'")
    return either.sub(lambda match: new if match[1] else match[0], statement)
