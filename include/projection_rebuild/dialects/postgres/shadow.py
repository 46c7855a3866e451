"""Builds the statements that make green like blue on PostgreSQL: what ``LIKE`` copies, and all that it leaves out. Executes none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from projection_rebuild.dialects.postgres.catalog import (
    MATERIALIZED_VIEW,
    MAX_IDENTIFIER,
    Catalog,
    Column,
    ForeignKey,
    Grant,
    Index,
    OwnedSequence,
    Relation,
    block,
    full_name,
    ident,
    literal,
)
from projection_rebuild.dialects.postgres.target_schema import ParsedSchema, creating, parsed_schema
from projection_rebuild.model.names import GREEN_SUFFIX, TableSet, derived

Record = TypeVar("Record")


def green_name(name: str) -> str:
    """The name of an index, sequence or statistics object while it belongs to green."""
    return derived(name, GREEN_SUFFIX, MAX_IDENTIFIER)


class Clone:
    """The statements that make one green relation like its blue one.

    :param blue: the live table or materialized view
    """

    def __init__(self, catalog: Catalog, names: TableSet, blue: Relation) -> None:
        self._catalog = catalog
        self._names = names
        self._blue = blue
        self._green = full_name(names.schema, names.green)
        self._structure = parsed_schema(names)

    # Tables -----------------------------------------------------------------------------------------------------

    def create(self) -> Iterator[str]:
        """Creates an empty green, without secondary indexes, foreign keys, and the objects that the swap moves."""
        blue = self._blue
        if self._structure:
            yield from self._create_anew(self._structure)
            return
        yield (
            f"CREATE {'UNLOGGED ' if blue.persistence == 'u' else ''}TABLE {self._green} (LIKE {blue.full_name} INCLUDING ALL "
            f"EXCLUDING COMMENTS EXCLUDING IDENTITY EXCLUDING INDEXES EXCLUDING STATISTICS){self.storage()}"
        )
        yield from self._revoke_default_privileges("TABLE", self._green, self._catalog.user)
        yield f"ALTER TABLE {self._green} OWNER TO {ident(blue.owner)}"
        yield from self._unvalidated_checks()
        yield from self._identities()
        yield from self._columns()
        yield from self._statistics()
        yield from self._comments()
        yield from self._grants("TABLE", self._green, blue.oid)
        yield from self._row_security()
        # Unique indexes from the start: lookups use them, and a duplicate fails at the event that causes it.
        yield from self._new_indexes(lambda index: index.unique)
        if blue.replica_identity in "fn":
            yield f"ALTER TABLE {self._green} REPLICA IDENTITY {'FULL' if blue.replica_identity == 'f' else 'NOTHING'}"

    def _create_anew(self, structure: ParsedSchema) -> Iterator[str]:
        """Creates a green of another structure. It gets from blue what the structure does not declare: owner, privileges, row
        security, replica identity."""
        blue = self._blue
        yield creating(self._catalog, self._names, structure, green_name)
        yield from self._revoke_default_privileges("TABLE", self._green, self._catalog.user)
        yield f"ALTER TABLE {self._green} OWNER TO {ident(blue.owner)}"
        owners = {statistics.name: statistics.owner for statistics in self._catalog.statistics(blue.oid)}
        for statistics in structure.statistics:
            owner = owners.get(statistics.name, blue.owner)
            yield f"ALTER STATISTICS {full_name(statistics.schema, green_name(statistics.name))} OWNER TO {ident(owner)}"
        live = {sequence.name: sequence for sequence in self._catalog.sequences(blue.oid)}
        for sequence in structure.sequences:
            green_sequence = full_name(sequence.schema, green_name(sequence.name))
            yield from self._revoke_default_privileges("SEQUENCE", green_sequence, blue.owner)
            if sequence.name in live:
                yield from self._grants("SEQUENCE", green_sequence, live[sequence.name].oid)
        yield from self._grants("TABLE", self._green, blue.oid)
        yield from self._row_security()
        if blue.replica_identity in "fn":
            yield f"ALTER TABLE {self._green} REPLICA IDENTITY {'FULL' if blue.replica_identity == 'f' else 'NOTHING'}"
        for index in self._catalog.indexes(blue.oid):
            if index.replica_identity and any(
                index.name == new_index.name and new_index.unique for new_index in structure.indexes
            ):
                yield f"ALTER TABLE {self._green} REPLICA IDENTITY USING INDEX {ident(green_name(index.name))}"

    def storage(self) -> str:
        """The clauses that follow the columns: access method, options, tablespace."""
        blue = self._blue
        options = [*map(_option, blue.options), *(f"toast.{_option(option)}" for option in blue.toast_options)]
        return (
            (f" USING {ident(blue.access_method)}" if blue.access_method else "")
            + (f" WITH ({', '.join(options)})" if options else "")
            + (f" TABLESPACE {ident(blue.tablespace)}" if blue.tablespace else "")
        )

    def complete_view(self) -> Iterator[str]:
        """Makes a new materialized view like its blue one: owner, columns, statistics, comments, grants and indexes."""
        yield from self._revoke_default_privileges("TABLE", self._green, self._catalog.user)
        yield f"ALTER MATERIALIZED VIEW {self._green} OWNER TO {ident(self._blue.owner)}"
        yield from self._columns()
        yield from self._statistics()
        yield from self._comments()
        yield from self._grants("TABLE", self._green, self._blue.oid)
        yield from self._new_indexes(lambda _: True)

    def _unvalidated_checks(self) -> Iterator[str]:
        # LIKE copies them as valid, since a new table is empty.
        for check in self._catalog.constraints(self._blue.oid):
            if not check.validated and check.definition.endswith(" NOT VALID"):
                yield (
                    f"ALTER TABLE {self._green} DROP CONSTRAINT {ident(check.name)}, ADD CONSTRAINT {ident(check.name)} {check.definition}"
                )

    def _identities(self) -> Iterator[str]:
        for sequence in self._catalog.sequences(self._blue.oid):
            if not sequence.identity:
                continue
            green_sequence = full_name(sequence.schema, green_name(sequence.name))
            yield (
                f"ALTER TABLE {self._green} ALTER COLUMN {ident(sequence.column)} ADD GENERATED "
                f"{'ALWAYS' if sequence.identity == 'a' else 'BY DEFAULT'} AS IDENTITY (SEQUENCE NAME {green_sequence} {_counting(sequence)})"
            )
            if sequence.persistence != self._blue.persistence:
                yield f"ALTER SEQUENCE {green_sequence} SET {'UNLOGGED' if sequence.persistence == 'u' else 'LOGGED'}"
            yield from self._revoke_default_privileges("SEQUENCE", green_sequence, self._blue.owner)
            yield from self._grants("SEQUENCE", green_sequence, sequence.oid)
            if sequence.comment:
                yield f"COMMENT ON SEQUENCE {green_sequence} IS {literal(sequence.comment)}"

    def _columns(self) -> Iterator[str]:
        for column in self._catalog.columns(self._blue.oid):
            changes = [*_column_changes(column)]
            if self._blue.kind == MATERIALIZED_VIEW:
                changes += _stored(column)
            if changes:
                alter = f"ALTER COLUMN {ident(column.name)} "
                yield f"ALTER {self._blue.word} {self._green} " + ", ".join(alter + change for change in changes)

    def _statistics(self) -> Iterator[str]:
        for statistics in self._catalog.statistics(self._blue.oid):
            green_statistics = full_name(statistics.schema, green_name(statistics.name))
            yield f"CREATE STATISTICS {green_statistics}{statistics.definition} FROM {self._green}"
            yield f"ALTER STATISTICS {green_statistics} OWNER TO {ident(statistics.owner)}"
            if statistics.target is not None:
                yield f"ALTER STATISTICS {green_statistics} SET STATISTICS {statistics.target}"
            if statistics.comment:
                yield f"COMMENT ON STATISTICS {green_statistics} IS {literal(statistics.comment)}"

    def _comments(self) -> Iterator[str]:
        blue = self._blue
        if blue.comment:
            yield f"COMMENT ON {blue.word} {self._green} IS {literal(blue.comment)}"
        for column in self._catalog.columns(blue.oid):
            if column.comment:
                yield f"COMMENT ON COLUMN {self._green}.{ident(column.name)} IS {literal(column.comment)}"
        for check in self._catalog.constraints(blue.oid):
            if check.comment:
                yield f"COMMENT ON CONSTRAINT {ident(check.name)} ON {self._green} IS {literal(check.comment)}"

    def _revoke_default_privileges(self, what: str, new_object: str, maker: str) -> Iterator[str]:
        """Revokes default privileges, which are meant for new tables of the application."""
        grantees = self._catalog.default_grantees(maker, self._names.schema, _DEFAULTS_OF[what])
        if grantees:
            yield f"REVOKE ALL ON {what} {new_object} FROM {', '.join(_grantee(grantee) for grantee in grantees)}"
            yield f"GRANT ALL ON {what} {new_object} TO {ident(maker)}"

    def _grants(self, what: str, new_object: str, oid: int) -> Iterator[str]:
        grants = self._granted(oid)
        owner = self._blue.owner
        mine = {grant.privilege for grant in grants if grant.grantee == owner and grant.column is None}
        if mine != self._catalog.owner_privileges(oid):
            yield f"REVOKE ALL ON {what} {new_object} FROM {ident(owner)}"
        else:
            grants = [grant for grant in grants if grant.grantee != owner or grant.column is not None]
        # The owner's grants first: another grantor needs its own privilege before it can grant it.
        for grant in sorted(grants, key=lambda grant: grant.grantor != owner):
            privilege = f"{grant.privilege} ({ident(grant.column)})" if grant.column else grant.privilege
            passed_on = " WITH GRANT OPTION" if grant.grantable and grant.grantee != owner else ""
            statement = f"GRANT {privilege} ON {what} {new_object} TO {_grantee(grant.grantee)}{passed_on}"
            yield statement if grant.grantor == owner else block(f"SET LOCAL ROLE {ident(grant.grantor)}", statement)

    def _granted(self, oid: int) -> list[Grant]:
        """Blue's privileges that green can have: without those on columns that green lacks."""
        kept_columns = self._structure.columns if self._structure else ()
        return [
            grant
            for grant in self._catalog.grants(oid)
            if not kept_columns or grant.column is None or grant.column in kept_columns
        ]

    def _row_security(self) -> Iterator[str]:
        if self._blue.row_security:
            yield f"ALTER TABLE {self._green} ENABLE ROW LEVEL SECURITY"
        if self._blue.force_row_security:
            yield f"ALTER TABLE {self._green} FORCE ROW LEVEL SECURITY"

    # Indexes ----------------------------------------------------------------------------------------------------

    def indexes(self) -> Iterator[str]:
        """Creates the indexes that green lacks, with their properties, and drops those that blue does not have."""
        green = self._catalog.find(self._names.schema, self._names.green)
        existing = {index.name: index for index in self._catalog.indexes(green.oid)} if green else {}
        indexes = self._structure.indexes if self._structure else self._catalog.indexes(self._blue.oid)
        wanted = {green_name(index.name): _definition_of(index) for index in indexes}
        for name in [index.name for index in existing.values() if wanted.get(index.name) != _definition_of(index)]:
            # A constraint's index cannot be dropped alone; differences reports it.
            if not existing[name].constraint:
                del existing[name]
                yield f"DROP INDEX {full_name(self._names.schema, name)}"
        for index in indexes:
            green_index = existing.get(green_name(index.name))
            if green_index is None:
                yield self._index(index)
            yield from self._set_on(index, green_index or replace(index, **_BARE))

    def _new_indexes(self, is_wanted: Callable[[Index], bool]) -> Iterator[str]:
        """Creates indexes for a green that the same statements create, whatever has its name now."""
        for index in filter(is_wanted, self._catalog.indexes(self._blue.oid)):
            yield self._index(index)
            yield from self._set_on(index, replace(index, **_BARE))

    def _index(self, index: Index) -> str:
        name = ident(green_name(index.name))
        if index.constraint:
            statement = f"ALTER TABLE {self._green} ADD CONSTRAINT {name} {index.constraint}"
        else:
            statement = f"CREATE {'UNIQUE ' if index.unique else ''}INDEX {name} ON {self._green} USING {index.definition}"
        # The definitions have no clause for the tablespace.
        return block(f"SET LOCAL default_tablespace = {literal(index.tablespace)}", statement) if index.tablespace else statement

    def _set_on(self, index: Index, green_index: Index) -> Iterator[str]:
        name = ident(green_name(index.name))
        full = full_name(self._names.schema, green_name(index.name))
        if index.constraint and index.options and index.options != green_index.options:
            # A constraint's definition does not include them.
            yield f"ALTER INDEX {full} SET ({', '.join(map(_option, index.options))})"
        for number, target in index.statistics:
            if (number, target) not in green_index.statistics:
                yield f"ALTER INDEX {full} ALTER COLUMN {number} SET STATISTICS {target}"
        if index.clustered and not green_index.clustered:
            yield f"ALTER {self._blue.word} {self._green} CLUSTER ON {name}"
        if index.replica_identity and not green_index.replica_identity:
            yield f"ALTER TABLE {self._green} REPLICA IDENTITY USING INDEX {name}"
        if index.comment and index.comment != green_index.comment:
            yield f"COMMENT ON INDEX {full} IS {literal(index.comment)}"
        if index.constraint_comment and index.constraint_comment != green_index.constraint_comment:
            yield f"COMMENT ON CONSTRAINT {name} ON {self._green} IS {literal(index.constraint_comment)}"

    # Foreign keys -----------------------------------------------------------------------------------------------

    def foreign_keys(self, run: Sequence[TableSet]) -> Iterator[str]:
        """Adds the foreign keys to tables of the run that green lacks, and validates them.

        The swap moves the keys from and to other tables, since on green they would block the application.
        """
        green = self._catalog.find(self._names.schema, self._names.green)
        keys = self._catalog.foreign_keys([green.oid]) if green else []
        existing = {key.name: key for key in keys if green and key.child_oid == green.oid}
        wanted = [key for key in self._catalog.foreign_keys([self._blue.oid]) if key.child_oid == self._blue.oid]
        for key in self._structure.foreign_keys if self._structure else wanted:
            if parent := _set_of(run, key):
                yield from self._foreign_key(key, parent, existing.get(key.name))

    # Comparing --------------------------------------------------------------------------------------------------

    def differences(self, green: Relation, run: Sequence[TableSet]) -> list[str]:
        """The names of objects that differ between green and the present blue."""
        blue, catalog = self._blue, self._catalog
        if self._structure:
            # Green differs on purpose; by then it has taken over only the privileges from blue.
            return [f"privilege {name}" for name in _names(set(self._granted(blue.oid)) ^ set(catalog.grants(green.oid)))]
        as_green = replace(blue, oid=green.oid, name=green.name, populated=green.populated)
        differences = [] if as_green == green else ["the table's own settings"]
        if [column.name for column in catalog.columns(blue.oid)] != [column.name for column in catalog.columns(green.oid)]:
            differences.append("the columns or their order")
        for what, of_blue, of_green in (
            ("column", catalog.columns(blue.oid), catalog.columns(green.oid)),
            ("constraint", catalog.constraints(blue.oid), catalog.constraints(green.oid)),
            ("index", [*map(_renamed, catalog.indexes(blue.oid))], catalog.indexes(green.oid)),
            ("statistics object", [*map(_renamed, catalog.statistics(blue.oid))], catalog.statistics(green.oid)),
            ("sequence", _identities(catalog, blue, _renamed), _identities(catalog, green, lambda sequence: sequence)),
            ("privilege", catalog.grants(blue.oid), catalog.grants(green.oid)),
            ("foreign key", self._keys(blue, run), self._keys(green, run)),
        ):
            differences += [f"{what} {name}" for name in _names(set(of_blue) ^ set(of_green))]
        return differences

    def _keys(self, table: Relation, run: Sequence[TableSet]) -> list[tuple[str, str, bool, str | None]]:
        """The foreign keys to tables of the run, with live names for the parents."""
        live = {name: table.blue for table in run for name in (table.blue, table.green)}
        return [
            (key.name, key.pointing_to(live[key.parent_name]), key.validated, key.comment)
            for key in self._catalog.foreign_keys([table.oid])
            if key.child_oid == table.oid and key.parent_schema == self._names.schema and key.parent_name in live
        ]

    def _foreign_key(self, key: ForeignKey, parent: TableSet, green_key: ForeignKey | None) -> Iterator[str]:
        # In two steps: the first takes only a moment, the second does not block writers.
        name = ident(key.name)
        if green_key is None:
            definition = key.pointing_to(full_name(parent.schema, parent.green)).removesuffix(" NOT VALID")
            unchecked = "" if definition.endswith(" NOT ENFORCED") else " NOT VALID"
            yield f"ALTER TABLE {self._green} ADD CONSTRAINT {name} {definition}{unchecked}"
        if key.comment and not (green_key and green_key.comment == key.comment):
            yield f"COMMENT ON CONSTRAINT {name} ON {self._green} IS {literal(key.comment)}"
        if key.validated and not (green_key and green_key.validated):
            yield f"ALTER TABLE {self._green} VALIDATE CONSTRAINT {name}"


def _set_of(run: Sequence[TableSet], key: ForeignKey) -> TableSet | None:
    return next((table for table in run if (table.schema, table.blue) == (key.parent_schema, key.parent_name)), None)


_DEFAULTS_OF = {"TABLE": "r", "SEQUENCE": "S"}
# The properties of a new index.
_BARE: dict[str, Any] = {
    "options": (),
    "statistics": (),
    "clustered": False,
    "replica_identity": False,
    "comment": None,
    "constraint_comment": None,
}


def _definition_of(index: Index) -> tuple[str | None, str, bool]:
    return index.constraint, index.definition, index.unique


def _renamed(record: Record) -> Record:
    """The record of blue's object with the name of green's."""
    renamed: Record = replace(record, name=green_name(record.name))  # type: ignore[type-var, attr-defined]
    return renamed


def _identities(
    catalog: Catalog, table: Relation, named: Callable[[OwnedSequence], OwnedSequence]
) -> list[tuple[OwnedSequence, frozenset[Grant]]]:
    return [
        (replace(named(sequence), oid=0), frozenset(catalog.grants(sequence.oid)))
        for sequence in catalog.sequences(table.oid)
        if sequence.identity
    ]


def _names(records: Iterable[Any]) -> list[str]:
    """The names of records of any kind."""
    firsts = [record[0] if isinstance(record, tuple) else record for record in records]
    return sorted({str(getattr(record, "name", None) or getattr(record, "privilege", record)) for record in firsts})


_STORAGE = {"p": "PLAIN", "e": "EXTERNAL", "m": "MAIN", "x": "EXTENDED"}
_COMPRESSION = {"p": "pglz", "l": "lz4"}


def _column_changes(column: Column) -> Iterator[str]:
    if column.statistics is not None:
        yield f"SET STATISTICS {column.statistics}"
    if column.options:
        yield f"SET ({', '.join(map(_option, column.options))})"


def _stored(column: Column) -> Iterator[str]:
    """Column settings that LIKE copies for a table; a materialized view needs them one by one."""
    if column.storage:
        yield f"SET STORAGE {_STORAGE[column.storage]}"
    if column.compression:
        yield f"SET COMPRESSION {_COMPRESSION[column.compression]}"


def _counting(sequence: OwnedSequence) -> str:
    return (
        f"START WITH {sequence.start} INCREMENT BY {sequence.increment} MINVALUE {sequence.minimum} MAXVALUE {sequence.maximum} "
        f"CACHE {sequence.cache} {'CYCLE' if sequence.cycle else 'NO CYCLE'}"
    )


def _option(option: str) -> str:
    name, _, value = option.partition("=")
    return f"{name}={literal(value)}"


def _grantee(name: str | None) -> str:
    return ident(name) if name else "PUBLIC"
