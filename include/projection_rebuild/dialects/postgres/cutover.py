"""Builds the statements of the swap on PostgreSQL: the renames, and the dependent objects that move with them. Executes none of them.

The swap renames tables, indexes, statistics objects and sequences. Other dependent objects are bound to a table's OID. The swap drops
some of them on blue and creates them on green: triggers, rules, policies, publications, and foreign keys across the border of the run.
It replaces views, so that they look up the names again. It reads all definitions from blue, and leaves nothing on the retired table, so
that a rollback can use the same swap.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from projection_rebuild.dialects.postgres.catalog import (
    MATERIALIZED_VIEW,
    MAX_IDENTIFIER,
    UNVALIDATED,
    VIEW,
    Attached,
    Catalog,
    ForeignKey,
    OwnedSequence,
    Policy,
    Publication,
    Relation,
    View,
    array,
    block,
    full_name,
    ident,
    literal,
)
from projection_rebuild.dialects.postgres.shadow import Clone, green_name
from projection_rebuild.dialects.postgres.target_schema import ParsedSchema, parsed_schema
from projection_rebuild.errors import changed_since
from projection_rebuild.model.names import GREEN_SUFFIX, OLD_SUFFIX, TableSet, derived

_LEVELS = """
WITH RECURSIVE up(oid, level) AS (
    SELECT unnest(%s::oid[]), 0
    UNION
    SELECT r.ev_class, up.level + 1 FROM up
      JOIN pg_catalog.pg_depend d ON d.refobjid = up.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                 AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> up.oid
)
SELECT oid::bigint, max(level) FROM up GROUP BY oid"""

_ATTEMPTS = 100

ASIDE_SUFFIX = "_projection_rebuild"
"""The suffix of a live table's temporary name within one statement; no other session sees it."""


def old_name(name: str) -> str:
    """The name of an index, sequence or statistics object that belongs to a retired table."""
    return derived(name, OLD_SUFFIX, MAX_IDENTIFIER)


@dataclass(frozen=True)
class Moved:
    """A table of the run, or a materialized view over one, whose name its green double takes."""

    names: TableSet
    blue: Relation

    def full_name(self, name: str) -> str:
        """One of its three names (blue, green, old), qualified and quoted."""
        return full_name(self.names.schema, name)


class Switch:
    """The swap of the tables of a run, its preparation, and what follows it.

    :param catalog: must stay open as long as this object is used
    """

    def __init__(self, catalog: Catalog, tables: Sequence[TableSet]) -> None:
        self._catalog = catalog
        relations = [(names, catalog.find(names.schema, names.blue)) for names in tables]
        self._tables = [Moved(names, relation) for names, relation in relations if relation is not None]

    # Objects that move ------------------------------------------------------------------------------------------

    @cached_property
    def materialized(self) -> list[Moved]:
        """The materialized views over the tables of the run, directly or through each other, the inner ones first."""
        moved_views: list[Moved] = []
        while True:
            views = self._catalog.views_over([moved.blue.oid for moved in [*self._tables, *moved_views]])
            known = {moved.blue.oid for moved in moved_views}
            new = [view.relation for view in views if view.relation.kind == MATERIALIZED_VIEW and view.relation.oid not in known]
            if not new:
                return sorted(moved_views, key=lambda moved: self._levels[moved.blue.oid])
            moved_views += [
                Moved(TableSet.of(relation.name, schema=relation.schema, limit=MAX_IDENTIFIER), relation) for relation in new
            ]

    @cached_property
    def moved(self) -> list[Moved]:
        """The tables of the run, and the materialized views over them."""
        return [*self._tables, *self.materialized]

    @cached_property
    def oids(self) -> list[int]:
        """The OIDs of the relations that the swap retires."""
        return [moved.blue.oid for moved in self.moved]

    @cached_property
    def _levels(self) -> dict[int, int]:
        """The longest path from a view to the tables of the run, in relations, by the view's OID."""
        tables = array([table.blue.oid for table in self._tables])
        return {oid: level for oid, level in self._catalog.rows(_LEVELS, tables)}

    @cached_property
    def views(self) -> list[View]:
        """The views over relations that the swap retires."""
        return [view for view in self._catalog.views_over(self.oids) if view.relation.kind != MATERIALIZED_VIEW]

    @cached_property
    def all_views(self) -> list[View]:
        """The views and materialized views over relations that the swap retires, the inner ones first."""
        return sorted(self._catalog.views_over(self.oids), key=lambda view: self._levels[view.relation.oid])

    def _query(self, view: View) -> str:
        """A view's query after the swap: the new one of the target schema, or else its present one."""
        new_queries = dict(
            view for table in self._tables if table.names.target_schema for view in table.names.target_schema.views
        )
        relation, schema = view.relation, self._tables[0].names.schema
        name = relation.name if relation.schema == schema else f"{relation.schema}.{relation.name}"
        return " " + new_queries[name] if name in new_queries else view.definition

    @cached_property
    def border_keys_after(self) -> list[ForeignKey]:
        """As :attr:`border_keys`, after the swap: a table of another structure brings its own keys."""
        formed = {table.blue.oid: structure for table in self._tables if (structure := parsed_schema(table.names))}
        run_tables = {(table.names.schema, table.names.blue) for table in self._tables}
        new_keys = [key for structure in formed.values() for key in structure.foreign_keys]
        return [key for key in self.border_keys if key.child_oid not in formed] + [
            key for key in new_keys if (key.parent_schema, key.parent_name) not in run_tables
        ]

    @cached_property
    def border_keys(self) -> list[ForeignKey]:
        """The foreign keys with only their child or only their parent in the run."""
        run_oids = {table.blue.oid for table in self._tables}
        return [
            key
            for key in self._catalog.foreign_keys(sorted(run_oids))
            if (key.child_oid in run_oids) != (key.parent_oid in run_oids)
        ]

    @cached_property
    def rules_elsewhere(self) -> list[Attached]:
        """The rules of other relations that refer to relations that the swap retires."""
        return self._catalog.rules_elsewhere(self.oids)

    @cached_property
    def policies_elsewhere(self) -> list[Policy]:
        """The policies of other tables that refer to relations that the swap retires."""
        return self._catalog.policies_elsewhere(self.oids)

    # Before -----------------------------------------------------------------------------------------------------

    def prepare(self) -> Iterator[str]:
        """Gives green the indexes and keys that blue got since the clone, and creates materialized views over green."""
        names = [table.names for table in self._tables]
        for table in self._tables:
            if self._catalog.find(table.names.schema, table.names.green) is None:
                # A dry run: the statements that create green give it everything.
                continue
            clone = Clone(self._catalog, table.names, table.blue)
            yield from clone.indexes()
            yield from clone.foreign_keys(names)
        if not self.materialized:
            return
        yield from self._drop_doubles(lambda names: [names.green, names.old])
        yield self._materialize()
        for view in self.materialized:
            yield from Clone(self._catalog, view.names, view.blue).complete_view()
            if view.blue.populated:
                yield f"REFRESH MATERIALIZED VIEW {view.full_name(view.names.green)}"
                yield f"VACUUM (ANALYZE) {view.full_name(view.names.green)}"

    def _materialize(self) -> str:
        """One statement that creates empty materialized views over green.

        The server binds the names in a view's query when it creates the view, so for that moment the green tables have the live names.
        No other session sees that, but the statement locks the live tables. So it waits as briefly as a swap, and tries again later.
        """
        forth: list[str] = []
        back: list[str] = []
        queries = {view.relation.oid: self._query(view) for view in self._catalog.views_over(self.oids)}
        for moved in self.moved:
            if moved.blue.kind == MATERIALIZED_VIEW:
                storage = Clone(self._catalog, moved.names, moved.blue).storage()
                green_view = moved.full_name(moved.names.green)
                forth.append(f"CREATE MATERIALIZED VIEW {green_view}{storage} AS {queries[moved.blue.oid]} WITH NO DATA")
            # Not the old name: a table that an earlier run retired may still have it.
            aside = derived(moved.names.blue, ASIDE_SUFFIX, MAX_IDENTIFIER)
            forth += self._renames(moved, moved.names.blue, aside) + self._renames(moved, moved.names.green, moved.names.blue)
            back += self._renames(moved, moved.names.blue, moved.names.green) + self._renames(moved, aside, moved.names.blue)
        locks = f"LOCK TABLE {', '.join(table.blue.full_name for table in self._tables)} IN ACCESS EXCLUSIVE MODE"
        body = "\n      ".join(f"EXECUTE {literal(statement)};" for statement in [locks, *forth, *back])
        return f"""DO $projection_rebuild$
BEGIN
  FOR attempt IN 1..{_ATTEMPTS} LOOP
    BEGIN
      PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
      {body}
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      IF attempt = {_ATTEMPTS} THEN
        RAISE;
      END IF;
    END;
    PERFORM pg_catalog.pg_sleep(pg_catalog.random() * 0.3);
  END LOOP;
END $projection_rebuild$"""

    def orphans(self, names: TableSet) -> Iterator[tuple[ForeignKey, str]]:
        """The foreign keys across the border of one table, each with a query for a row without a parent after the swap."""
        green = full_name(names.schema, names.green)
        for key in self.border_keys_after:
            if not key.holds:
                continue
            is_set = " AND ".join(f"c.{ident(column)} IS NOT NULL" for column in key.columns)
            if (key.child_schema, key.child_name) == (names.schema, names.blue):
                missing = f"NOT EXISTS (SELECT 1 FROM {key.parent} p WHERE {_match(key, 'p')})"
                yield key, f"SELECT 1 FROM {green} c WHERE {is_set} AND {missing} LIMIT 1"
            elif (key.parent_schema, key.parent_name) == (names.schema, names.blue):
                # Only parents from before the clone: green may not have newer ones yet.
                young = f"(SELECT age(t.xmin) FROM pg_catalog.pg_type t WHERE t.oid = {literal(green)}::pg_catalog.regtype)"
                yield (
                    key,
                    f"SELECT 1 FROM {key.child} c JOIN {key.parent} b ON {_match(key, 'b')} WHERE {is_set} AND age(b.xmin) > {young} "
                    f"AND NOT EXISTS (SELECT 1 FROM {green} p WHERE {_match(key, 'p')}) LIMIT 1",
                )

    # Within -----------------------------------------------------------------------------------------------------

    @cached_property
    def tied(self) -> list[Relation]:
        """The relations that foreign keys, rules and policies connect with relations that the swap retires."""
        names = [rule.relation for rule in self.rules_elsewhere] + [rule.relation for rule in self.policies_elsewhere]
        names += [name for key in [*self.border_keys, *self.border_keys_after] for name in (key.child, key.parent)]
        return [self._catalog.named(name) for name in dict.fromkeys(names)]

    def locks(self) -> list[str]:
        """Statements that lock the views that the swap changes, the outermost first, as their readers do.

        A reader looks up a view's query before it waits for a table, and would go on with the retired table. So the engine locks views
        before tables: then no reader is between the two.
        """
        views = [view.relation for view in self.views] + [moved.blue for moved in self.materialized]
        views += [relation for relation in self.tied if relation.kind == VIEW]
        # A random order within a level: with a fixed one, readers that lock in the opposite order could win every attempt.
        views = random.sample([*dict.fromkeys(views)], len({*views}))
        views.sort(key=lambda relation: -self._levels.get(relation.oid, 0))
        # This changes nothing. LOCK TABLE would also lock all relations that a view reads, and does not accept materialized views.
        return [f"ALTER {view.word} {view.full_name} OWNER TO {ident(view.owner)}" for view in views]

    def locked_tables(self) -> list[str]:
        """The tables that the swap locks: those of the run, and those in :attr:`tied`; qualified and quoted."""
        return sorted(
            {relation.full_name for relation in [*(table.blue for table in self._tables), *self.tied] if relation.kind != VIEW}
        )

    def statements(self) -> list[str]:
        """The swap itself, to be executed while all locks are held."""
        # The server refuses to alter a table that has a deferred check pending, as the drain may leave one.
        statements = ["SET CONSTRAINTS ALL IMMEDIATE"] if self._catalog.can_defer(self.oids) else []
        statements += [f"ALTER TABLE {key.child} DROP CONSTRAINT {ident(key.name)}" for key in self.border_keys]
        for moved in self.moved:
            statements += self._detach(moved)
            statements += self._move_names(moved)
        for moved in self.moved:
            statements += self._renames(moved, moved.names.blue, moved.names.old)
            statements += self._renames(moved, moved.names.green, moved.names.blue)
        statements += [statement for key in self.border_keys_after for statement in _border_key(key)]
        for moved in self.moved:
            statements += self.attach(moved)
        statements += [_view(view, self._query(view)) for view in self.views]
        statements += [rule.definition.replace("CREATE RULE", "CREATE OR REPLACE RULE", 1) for rule in self.rules_elsewhere]
        return statements + [_altered(policy) for policy in self.policies_elsewhere]

    def refuse_changes(self) -> None:
        """Compares blue with green, which was created from an earlier blue.

        :raises CloneError: an operator changed blue since then
        """
        run = [table.names for table in self._tables]
        for moved in self.moved:
            green = self._catalog.find(moved.names.schema, moved.names.green)
            changed = Clone(self._catalog, moved.names, moved.blue).differences(green, run) if green else []
            if changed:
                raise changed_since(moved.names.blue, moved.names.green, changed)

    def _detach(self, moved: Moved) -> Iterator[str]:
        blue, oid = moved.blue.full_name, moved.blue.oid
        for publication in self._catalog.publications(oid):
            yield f"ALTER PUBLICATION {ident(publication.name)} DROP TABLE {blue}"
        for trigger in self._catalog.triggers(oid):
            yield f"DROP TRIGGER {ident(trigger.name)} ON {blue}"
        for rule in self._rules(moved):
            yield f"DROP RULE {ident(rule.name)} ON {blue}"
        for policy in self._catalog.policies(oid):
            yield f"DROP POLICY {ident(policy.name)} ON {blue}"

    def attach(self, moved: Moved) -> Iterator[str]:
        """Statements that create a table's policies, rules, triggers and publications on the table that takes its name."""
        blue, oid = moved.blue.full_name, moved.blue.oid
        for policy in self._catalog.policies(oid):
            yield _created(policy)
            if policy.comment:
                yield f"COMMENT ON POLICY {ident(policy.name)} ON {blue} IS {literal(policy.comment)}"
        for kind, attached_objects in (("RULE", self._rules(moved)), ("TRIGGER", self._catalog.triggers(oid))):
            for attached_object in attached_objects:
                yield attached_object.definition
                if attached_object.enabled != "O":
                    yield f"ALTER TABLE {blue} {_FIRING[attached_object.enabled]} {kind} {ident(attached_object.name)}"
                if attached_object.comment:
                    yield f"COMMENT ON {kind} {ident(attached_object.name)} ON {blue} IS {literal(attached_object.comment)}"
        for publication in self._catalog.publications(oid):
            yield _published(publication, blue)

    def created(self, policy: Policy) -> str:
        """A policy's CREATE statement."""
        return _created(policy)

    def _rules(self, moved: Moved) -> list[Attached]:
        return self._catalog.rules(moved.blue.oid)

    def _move_names(self, moved: Moved) -> Iterator[str]:
        if structure := parsed_schema(moved.names):
            yield from self._exchange_names(moved, structure)
            return
        schema, oid = moved.names.schema, moved.blue.oid
        for index in self._catalog.indexes(oid):
            yield from _moved_name("INDEX", schema, index.name)
        for statistics in self._catalog.statistics(oid):
            yield from _moved_name("STATISTICS", statistics.schema, statistics.name)
        for sequence in self._catalog.sequences(oid):
            if not sequence.identity:
                yield self._handed_over(moved, sequence)
                continue
            yield counted_on(sequence)
            yield from _moved_name("SEQUENCE", sequence.schema, sequence.name)

    def _exchange_names(self, moved: Moved, structure: ParsedSchema) -> Iterator[str]:
        """Renames the objects of blue and of a green of another structure. A sequence continues from blue's of the same name."""
        kept = {name for _, _, name in structure.kept}
        sequences = {sequence.name: sequence for sequence in self._catalog.sequences(moved.blue.oid)}
        for name, sequence in sequences.items():
            if name in kept:
                yield self._handed_over(moved, sequence)
        for new in structure.sequences:
            if new.name in sequences:
                yield counted_on(sequences[new.name])
        for kind, schema, name in self._names_on(moved.blue):
            yield f"ALTER {kind} {full_name(schema, name)} RENAME TO {ident(old_name(name))}"
        for sequence in sequences.values():
            # The sequence of a serial column may have the name that the sequence of an identity column needs.
            if not sequence.identity and sequence.name not in kept:
                yield f"ALTER SEQUENCE {sequence.full_name} RENAME TO {ident(old_name(sequence.name))}"
        for kind, schema, name in [
            *(("INDEX", moved.blue.schema, index.name) for index in structure.indexes),
            *(("STATISTICS", statistics.schema, statistics.name) for statistics in structure.statistics),
            *(("SEQUENCE", sequence.schema, sequence.name) for sequence in structure.sequences),
        ]:
            yield f"ALTER {kind} {full_name(schema, green_name(name))} RENAME TO {ident(name)}"

    def _handed_over(self, moved: Moved, sequence: OwnedSequence) -> str:
        """Gives green the ownership of a serial column's sequence, which green's column uses too."""
        return f"ALTER SEQUENCE {sequence.full_name} OWNED BY {moved.full_name(moved.names.green)}.{ident(sequence.column)}"

    def _renames(self, moved: Moved, name: str, to: str) -> list[str]:
        return [f"ALTER {moved.blue.word} {moved.full_name(name)} RENAME TO {ident(to)}"]

    # After the swap, and its reversal ---------------------------------------------------------------------------

    def finish(self) -> Iterator[str]:
        """Drops retired materialized views, and validates the foreign keys that were valid before the swap. Others read and write
        meanwhile."""
        yield from self._drop_doubles(lambda names: [names.old])
        for key in self._catalog.foreign_keys([table.blue.oid for table in self._tables]):
            if key.marked:
                yield _validated(key)

    def planned_finish(self) -> Iterator[str]:
        """The statements for foreign keys that :meth:`finish` will give, for a dry run."""
        yield from (_validated(key) for key in self.border_keys_after if key.holds)

    def _drop_doubles(self, names: Callable[[TableSet], list[str]]) -> Iterator[str]:
        """Drops the doubles of materialized views, which are only copies."""
        doubles = [self._catalog.find(view.names.schema, name) for view in self.materialized for name in names(view.names)]
        drops = [drop for relation in doubles if relation is not None for drop in dropping(self._catalog, relation)]
        yield from dict.fromkeys(drops)

    def planned_drop(self, name: str) -> Iterator[str]:
        """The statements that :func:`dropping` will give for the one table of this swap, for a dry run."""
        for view in reversed(self.materialized):
            yield f"DROP MATERIALIZED VIEW {view.full_name(view.names.old)}"
        for table in self._tables:
            yield f"DROP TABLE {table.full_name(name)}"

    def take_back(self) -> Iterator[str]:
        """Gives retired tables, and the objects that the swap renamed with them, the names of green ones."""
        yield from self._drop_doubles(lambda names: [names.old])
        for table in self._tables:
            old = self._catalog.find(table.names.schema, table.names.old)
            if old is None:
                continue
            for kind, schema, name in self._names_on(table.blue):
                if (kind, schema, old_name(name)) in self._names_on(old):
                    yield f"ALTER {kind} {full_name(schema, old_name(name))} RENAME TO {ident(green_name(name))}"
            yield from self._renames(table, table.names.old, table.names.green)

    def _names_on(self, relation: Relation) -> list[tuple[str, str, str]]:
        """The kind, schema and name of each object that has its own name in a schema and belongs to this table alone."""
        indexes = [("INDEX", relation.schema, index.name) for index in self._catalog.indexes(relation.oid)]
        statistics = [("STATISTICS", statistics.schema, statistics.name) for statistics in self._catalog.statistics(relation.oid)]
        sequences = [
            ("SEQUENCE", sequence.schema, sequence.name)
            for sequence in self._catalog.sequences(relation.oid)
            if sequence.identity
        ]
        return indexes + statistics + sequences


def dropping(catalog: Catalog, relation: Relation) -> Iterator[str]:
    """Drops a double, green or retired. First it drops what rebuilds added: materialized views over it, and keys of other doubles."""
    suffix = GREEN_SUFFIX if relation.name.endswith(GREEN_SUFFIX) else OLD_SUFFIX
    for key in catalog.foreign_keys([relation.oid]):
        if key.child_oid != relation.oid and key.child_name.endswith((GREEN_SUFFIX, OLD_SUFFIX)):
            yield f"ALTER TABLE {key.child} DROP CONSTRAINT {ident(key.name)}"
    doubles: list[Relation] = []
    over = [relation.oid]
    while over:
        outer = [view.relation for view in catalog.views_over(over)]
        outer = [view for view in outer if view.kind == MATERIALIZED_VIEW and view.name.endswith(suffix)]
        # The order is innermost first; a view over two others comes only once, behind both.
        doubles = [double for double in doubles if double not in outer] + outer
        over = [double.oid for double in outer]
    for double in [*reversed(doubles), relation]:
        yield f"DROP {double.word} {double.full_name}"


_FIRING = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}


def _match(key: ForeignKey, parent: str) -> str:
    return " AND ".join(f"{parent}.{ident(to)} = c.{ident(of)}" for of, to in zip(key.columns, key.parent_columns, strict=True))


def counted_on(sequence: OwnedSequence) -> str:
    """Sets green's sequence of an identity column to the further one of its own and blue's value, so that no id repeats."""
    live, green = sequence.full_name, full_name(sequence.schema, green_name(sequence.name))
    further = "DESC" if sequence.increment > 0 else "ASC"
    return (
        f"SELECT pg_catalog.setval({literal(green)}, last_value, is_called) FROM "
        f"(SELECT last_value, is_called FROM {live} UNION ALL SELECT last_value, is_called FROM {green}) s "
        f"ORDER BY last_value {further}, is_called DESC LIMIT 1"
    )


def _moved_name(kind: str, schema: str | None, name: str) -> Iterator[str]:
    yield f"ALTER {kind} {full_name(schema, name)} RENAME TO {ident(old_name(name))}"
    yield f"ALTER {kind} {full_name(schema, green_name(name))} RENAME TO {ident(name)}"


def _border_key(key: ForeignKey) -> Iterator[str]:
    name = ident(key.name)
    yield f"ALTER TABLE {key.child} ADD CONSTRAINT {name} {key.not_valid}"
    comment = (key.comment or "") + (UNVALIDATED if key.holds else "")
    if comment:
        yield f"COMMENT ON CONSTRAINT {name} ON {key.child} IS {literal(comment)}"


def _validated(key: ForeignKey) -> str:
    comment = literal(key.comment) if key.comment else "NULL"
    return block(
        f"ALTER TABLE {key.child} VALIDATE CONSTRAINT {ident(key.name)}",
        # In one block: until the key is valid, its mark must stay.
        f"COMMENT ON CONSTRAINT {ident(key.name)} ON {key.child} IS {comment}",
    )


def _view(view: View, query: str) -> str:
    options = ", ".join(
        f"{name}={literal(value)}" for name, _, value in (option.partition("=") for option in view.relation.options)
    )
    columns = ", ".join(ident(name) for name in view.columns)
    return f"CREATE OR REPLACE VIEW {view.relation.full_name} ({columns}){f' WITH ({options})' if options else ''} AS{query}"


def _created(policy: Policy) -> str:
    roles = ", ".join(ident(role) for role in policy.roles) or "PUBLIC"
    kind = "PERMISSIVE" if policy.permissive else "RESTRICTIVE"
    return (
        f"CREATE POLICY {ident(policy.name)} ON {policy.relation} AS {kind} FOR {policy.command} TO {roles}{_conditions(policy)}"
    )


def _altered(policy: Policy) -> str:
    return f"ALTER POLICY {ident(policy.name)} ON {policy.relation}{_conditions(policy)}"


def _conditions(policy: Policy) -> str:
    using = f" USING ({policy.using})" if policy.using else ""
    return using + (f" WITH CHECK ({policy.check})" if policy.check else "")


def _published(publication: Publication, table: str) -> str:
    columns = f" ({', '.join(ident(name) for name in publication.columns)})" if publication.columns else ""
    where = f" WHERE ({publication.where})" if publication.where else ""
    return f"ALTER PUBLICATION {ident(publication.name)} ADD TABLE ONLY {table}{columns}{where}"
