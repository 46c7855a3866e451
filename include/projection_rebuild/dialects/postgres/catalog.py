"""Reads PostgreSQL's catalogs into small records. Definitions are SQL in which every name has its schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import sqlalchemy as sa

Record = TypeVar("Record")

TABLE, PARTITIONED, VIEW, MATERIALIZED_VIEW = "r", "p", "v", "m"

MAX_IDENTIFIER = 63

UNVALIDATED = " [projection_rebuild: to be validated]"
"""The end of a foreign key's comment from the swap until its validation, if the key was valid before the swap."""


def ident(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def full_name(schema: str | None, name: str) -> str:
    """A name with its schema, quoted."""
    return f"{ident(schema)}.{ident(name)}" if schema else ident(name)


def literal(text: str) -> str:
    """A string constant that means the same with either value of standard_conforming_strings."""
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def replaced(definition: str, old: str, new: str) -> str:
    """``definition`` with ``old`` replaced by ``new``, except within quotes."""
    pattern = re.compile(f"({re.escape(old)})" + r"""|"(?:[^"]|"")*"|'(?:[^']|'')*'""")
    return pattern.sub(lambda match: new if match.group(1) else match.group(0), definition)


def block(*statements: str) -> str:
    """One statement that executes all of these or none. Settings by SET LOCAL end with it."""
    return (
        "DO $projection_rebuild$ BEGIN "
        + " ".join(f"EXECUTE {literal(statement)};" for statement in statements)
        + " END $projection_rebuild$"
    )


@dataclass(frozen=True)
class Relation:
    """A table, view or materialized view.

    :param kind: as in pg_class.relkind
    :param tablespace: None for the database's default
    """

    oid: int
    schema: str
    name: str
    kind: str
    owner: str
    persistence: str
    access_method: str | None
    tablespace: str | None
    options: tuple[str, ...]
    toast_options: tuple[str, ...]
    comment: str | None
    row_security: bool
    force_row_security: bool
    replica_identity: str
    populated: bool

    @property
    def full_name(self) -> str:
        """Qualified and quoted."""
        return full_name(self.schema, self.name)

    @property
    def word(self) -> str:
        """The keyword for its kind in ALTER and COMMENT."""
        return {VIEW: "VIEW", MATERIALIZED_VIEW: "MATERIALIZED VIEW"}.get(self.kind, "TABLE")


@dataclass(frozen=True)
class Column:
    """A column; ``storage``, ``statistics`` and ``options`` are None or empty if they have their defaults."""

    name: str
    type: str
    not_null: bool
    identity: str
    generated: str
    collation: str | None
    default: str | None
    storage: str | None
    compression: str
    statistics: int | None
    options: tuple[str, ...]
    comment: str | None


@dataclass(frozen=True)
class Constraint:
    """A check or not-null constraint of a table."""

    name: str
    kind: str
    definition: str
    validated: bool
    comment: str | None


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key from ``child`` to ``parent``, both qualified and quoted as in definitions.

    :param remark: its comment, with the engine's mark if it has one; see :attr:`comment`
    """

    name: str
    definition: str
    validated: bool
    remark: str | None
    child_oid: int
    child: str
    parent_oid: int
    parent: str
    parent_schema: str
    parent_name: str
    child_schema: str
    child_name: str
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]

    @property
    def comment(self) -> str | None:
        """The comment without the engine's mark."""
        return (self.remark or "").removesuffix(UNVALIDATED) or None

    @property
    def marked(self) -> bool:
        """Whether a swap has added it without validation, and the reconcile step still has to validate it."""
        return (self.remark or "").endswith(UNVALIDATED)

    @property
    def holds(self) -> bool:
        """Whether all rows must satisfy it, and not only new ones."""
        return self.validated or self.marked

    def pointing_to(self, parent: str) -> str:
        """The definition with another parent table.

        :param parent: qualified and quoted
        """
        return replaced(self.definition, f" REFERENCES {self.parent}(", f" REFERENCES {parent}(")

    @property
    def not_valid(self) -> str:
        """The definition with NOT VALID, so that adding the key does not check the existing rows."""
        # The server never checks a key that is NOT ENFORCED.
        held = self.definition.endswith((" NOT VALID", " NOT ENFORCED"))
        return self.definition if held else self.definition + " NOT VALID"


@dataclass(frozen=True)
class Index:
    """An index.

    :param constraint: the definition of the constraint that it belongs to; None if it belongs to none
    :param definition: the text after USING
    :param statistics: (number of the column, target) for columns with a statistics target of their own
    """

    name: str
    constraint: str | None
    definition: str
    unique: bool
    clustered: bool
    replica_identity: bool
    options: tuple[str, ...]
    tablespace: str | None
    statistics: tuple[tuple[int, int], ...]
    comment: str | None
    constraint_comment: str | None


@dataclass(frozen=True)
class Statistics:
    """A statistics object; ``definition`` is the text between its name and FROM."""

    schema: str
    name: str
    definition: str
    owner: str
    target: int | None
    comment: str | None


@dataclass(frozen=True)
class OwnedSequence:
    """A sequence that a column owns.

    :param identity: 'a' or 'd' as in pg_attribute.attidentity; empty for a serial column
    """

    oid: int
    schema: str
    name: str
    column: str
    identity: str
    persistence: str
    type: str
    start: int
    increment: int
    maximum: int
    minimum: int
    cache: int
    cycle: bool
    comment: str | None

    @property
    def full_name(self) -> str:
        """Qualified and quoted."""
        return full_name(self.schema, self.name)


@dataclass(frozen=True)
class Attached:
    """A trigger or rule of a relation.

    :param definition: its whole CREATE statement
    :param enabled: when it fires, as in pg_trigger.tgenabled
    """

    name: str
    relation: str
    definition: str
    enabled: str
    comment: str | None


@dataclass(frozen=True)
class Policy:
    """A row security policy."""

    name: str
    relation: str
    permissive: bool
    command: str
    roles: tuple[str, ...]
    using: str | None
    check: str | None
    comment: str | None


@dataclass(frozen=True)
class Publication:
    """A publication that names a table; ``columns`` is empty and ``where`` is None if it publishes the whole table."""

    name: str
    columns: tuple[str, ...]
    where: str | None


@dataclass(frozen=True)
class Grant:
    """One privilege; ``grantee`` is None for PUBLIC."""

    privilege: str
    grantee: str | None
    grantable: bool
    column: str | None
    grantor: str


@dataclass(frozen=True)
class View:
    """A view or materialized view and its query."""

    relation: Relation
    definition: str
    columns: tuple[str, ...]


_FACTS = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_get_userbyid(c.relowner), c.relpersistence::text, am.amname, ts.spcname,
       coalesce(c.reloptions, '{}'), coalesce(t.reloptions, '{}'), pg_catalog.obj_description(c.oid, 'pg_class'),
       c.relrowsecurity, c.relforcerowsecurity, c.relreplident::text, c.relispopulated"""

_FROM = """
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
  LEFT JOIN pg_catalog.pg_tablespace ts ON ts.oid = c.reltablespace
  LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid"""

_RELATION = _FACTS + _FROM

# pg_attver belongs to the server: minor versions since November 2026 count the changes of a column in it.
_COLUMNS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text, a.attgenerated::text,
       CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::pg_catalog.regcollation::text END,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid), nullif(a.attstorage, t.typstorage)::text, a.attcompression::text, nullif(a.attstattarget, -1),
       ARRAY(SELECT o FROM unnest(a.attoptions) o WHERE split_part(o, '=', 1) <> 'pg_attver'), pg_catalog.col_description(a.attrelid, a.attnum)
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

_CONSTRAINTS = """
SELECT conname, contype::text, pg_catalog.pg_get_constraintdef(oid), convalidated, pg_catalog.obj_description(oid, 'pg_constraint')
  FROM pg_catalog.pg_constraint WHERE conrelid = %s AND contype IN ('c', 'n') ORDER BY conname"""

_FOREIGN_KEYS = """
SELECT k.conname, pg_catalog.pg_get_constraintdef(k.oid), k.convalidated, pg_catalog.obj_description(k.oid, 'pg_constraint'),
       k.conrelid, k.conrelid::pg_catalog.regclass::text, k.confrelid, k.confrelid::pg_catalog.regclass::text,
       pn.nspname, p.relname, cn.nspname, c.relname,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, at) JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.at),
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, at) JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.at)
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 WHERE k.contype = 'f' AND k.conparentid = 0 AND (k.conrelid = ANY (%s::oid[]) OR k.confrelid = ANY (%s::oid[])) ORDER BY k.conname, 6"""

# The server's text without its beginning, whose length the query computes.
_INDEXES = """
SELECT i.relname, CASE WHEN con.oid IS NOT NULL THEN pg_catalog.pg_get_constraintdef(con.oid) END,
       substr(pg_catalog.pg_get_indexdef(i.oid), 1 + length(
           'CREATE ' || CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX ' || pg_catalog.quote_ident(i.relname)
           || ' ON ' || x.indrelid::pg_catalog.regclass::text || ' USING ')),
       x.indisunique, x.indisclustered, x.indisreplident, coalesce(i.reloptions, '{}'), ts.spcname,
       ARRAY(SELECT ARRAY[a.attnum, a.attstattarget] FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = i.oid AND nullif(a.attstattarget, -1) IS NOT NULL ORDER BY a.attnum),
       pg_catalog.obj_description(i.oid, 'pg_class'), pg_catalog.obj_description(con.oid, 'pg_constraint')
  FROM pg_catalog.pg_index x
  JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
  LEFT JOIN pg_catalog.pg_tablespace ts ON ts.oid = i.reltablespace
  LEFT JOIN pg_catalog.pg_constraint con ON con.conindid = i.oid AND con.conrelid = x.indrelid AND con.contype IN ('p', 'u', 'x')
 WHERE x.indrelid = %s AND x.indisvalid
 ORDER BY con.contype IS DISTINCT FROM 'p', i.relname"""

_STATISTICS = """
SELECT n.nspname, s.stxname, substr(left(d.def, -length(' FROM ' || s.stxrelid::pg_catalog.regclass::text)),
           1 + length('CREATE STATISTICS ' || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(s.stxname))),
       pg_catalog.pg_get_userbyid(s.stxowner), nullif(s.stxstattarget, -1), pg_catalog.obj_description(s.oid, 'pg_statistic_ext')
  FROM pg_catalog.pg_statistic_ext s
  JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
  CROSS JOIN LATERAL pg_catalog.pg_get_statisticsobjdef(s.oid) d(def)
 WHERE s.stxrelid = %s ORDER BY s.stxname"""

_SEQUENCES = """
SELECT s.oid, n.nspname, s.relname, a.attname, a.attidentity::text, s.relpersistence::text, pg_catalog.format_type(q.seqtypid, NULL),
       q.seqstart, q.seqincrement, q.seqmax, q.seqmin, q.seqcache, q.seqcycle, pg_catalog.obj_description(s.oid, 'pg_class')
  FROM pg_catalog.pg_depend d
  JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
   AND d.refobjid = %s AND d.deptype IN ('a', 'i') ORDER BY a.attnum, s.relname"""

_TRIGGERS = """
SELECT tgname, tgrelid::pg_catalog.regclass::text, pg_catalog.pg_get_triggerdef(oid), tgenabled::text,
       pg_catalog.obj_description(oid, 'pg_trigger')
  FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgrelid = %s ORDER BY tgname"""

_RULES = """
SELECT r.rulename, r.ev_class::pg_catalog.regclass::text, pg_catalog.pg_get_ruledef(r.oid), r.ev_enabled::text,
       pg_catalog.obj_description(r.oid, 'pg_rewrite')
  FROM pg_catalog.pg_rewrite r WHERE r.rulename <> '_RETURN' AND {where} ORDER BY r.rulename, 2"""

_POLICIES = """
SELECT p.polname, p.polrelid::pg_catalog.regclass::text, p.polpermissive,
       CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
       ARRAY(SELECT pg_catalog.pg_get_userbyid(r) FROM unnest(p.polroles) r WHERE r <> 0 ORDER BY 1)::text[],
       pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
       pg_catalog.obj_description(p.oid, 'pg_policy')
  FROM pg_catalog.pg_policy p WHERE {where} ORDER BY p.polname, 2"""

_PUBLICATIONS = """
SELECT p.pubname,
       ARRAY(SELECT a.attname::text FROM unnest(r.prattrs) n JOIN pg_catalog.pg_attribute a
                 ON a.attrelid = r.prrelid AND a.attnum = n ORDER BY n),
       pg_catalog.pg_get_expr(r.prqual, r.prrelid)
  FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
 WHERE r.prrelid = %s ORDER BY p.pubname"""

_GRANTS = """
SELECT a.privilege_type, CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END, a.is_grantable, NULL,
       pg_catalog.pg_get_userbyid(a.grantor)
  FROM pg_catalog.pg_class c
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(c.relacl,
       pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner))) a
 WHERE c.oid = %(oid)s
UNION ALL
SELECT a.privilege_type, CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END, a.is_grantable, t.attname,
       pg_catalog.pg_get_userbyid(a.grantor)
  FROM pg_catalog.pg_attribute t CROSS JOIN LATERAL pg_catalog.aclexplode(t.attacl) a
 WHERE t.attrelid = %(oid)s AND NOT t.attisdropped
 ORDER BY 4 NULLS FIRST, 2 NULLS FIRST, 1"""

_OWNER_PRIVILEGES = """
SELECT a.privilege_type FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(
       pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, c.relowner)) a WHERE c.oid = %s"""

_DEFAULT_GRANTEES = """
SELECT DISTINCT CASE WHEN a.grantee <> 0 THEN pg_catalog.pg_get_userbyid(a.grantee) END
  FROM pg_catalog.pg_default_acl d CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
 WHERE pg_catalog.pg_get_userbyid(d.defaclrole) = %s AND d.defaclobjtype = %s
   AND d.defaclnamespace IN (0, (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = %s))
 ORDER BY 1"""

# A view's query is a rule, which has the view's dependencies.
_VIEWS_OVER = f"""{_FACTS},
       rtrim(pg_catalog.pg_get_viewdef(c.oid), '; '),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)
{_FROM}
 WHERE c.oid IN (
    SELECT r.ev_class FROM pg_catalog.pg_depend d
      JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> d.refobjid
     WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid = ANY (%s::oid[]))
 ORDER BY n.nspname, c.relname"""

_BY_DEPENDENCY = """{column} <> ALL (%(oids)s::oid[]) AND {alias}.oid IN (
    SELECT d.objid FROM pg_catalog.pg_depend d WHERE d.classid = '{catalog}'::pg_catalog.regclass
       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY (%(oids)s::oid[]))"""


class Catalog:
    """Reads the catalogs over one connection.

    :param session_path: the connection's search_path outside :meth:`of`
    """

    def __init__(self, connection: sa.Connection, session_path: str = "") -> None:
        self._connection = connection
        self.session_path = session_path

    @classmethod
    @contextmanager
    def of(cls, connection: sa.Connection) -> Iterator[Catalog]:
        """Opens the catalogs of a connection. In this context the server qualifies every name, so that a definition means the
        same in any session."""
        path = connection.exec_driver_sql("SELECT pg_catalog.current_setting('search_path')").scalar_one()
        connection.exec_driver_sql("SELECT pg_catalog.set_config('search_path', '', false)")
        try:
            yield cls(connection, path)
        finally:
            # After an error of the server this statement fails too, and would hide the first error.
            with suppress(sa.exc.DBAPIError):
                connection.exec_driver_sql("SELECT pg_catalog.set_config('search_path', %s, false)", (path,))

    def rows(self, query: str, *values: Any, **named: Any) -> list[Any]:
        """The rows of a query."""
        return list(self._connection.exec_driver_sql(query, named or values))

    def find(self, schema: str | None, name: str) -> Relation | None:
        """The relation of this name; None if the schema has none."""
        rows = self.rows(_RELATION + " WHERE n.nspname = %s AND c.relname = %s", schema, name)
        return next(iter(_records(Relation, rows)), None)

    def relation(self, oid: int) -> Relation:
        """The relation with this OID."""
        return _records(Relation, self.rows(_RELATION + " WHERE c.oid = %s", oid))[0]

    def named(self, name: str) -> Relation:
        """The relation that a definition names; the name is qualified and quoted."""
        return _records(Relation, self.rows(_RELATION + " WHERE c.oid = %s::pg_catalog.regclass", name))[0]

    def columns(self, oid: int) -> list[Column]:
        """The columns of a relation, in order."""
        return _records(Column, self.rows(_COLUMNS, oid))

    def constraints(self, oid: int) -> list[Constraint]:
        """The check and not-null constraints of a table."""
        return _records(Constraint, self.rows(_CONSTRAINTS, oid))

    def foreign_keys(self, oids: Sequence[int]) -> list[ForeignKey]:
        """The foreign keys that have one of these tables as child or parent."""
        return _records(ForeignKey, self.rows(_FOREIGN_KEYS, array(oids), array(oids)))

    def may_select(self, oid: int) -> bool:
        """Whether the engine's role may read a relation."""
        return bool(self.rows("SELECT pg_catalog.has_table_privilege(%s::oid, 'SELECT')", oid)[0][0])

    def can_defer(self, oids: Sequence[int]) -> bool:
        """Whether these tables have a deferrable constraint or trigger, which runs as late as the end of the transaction."""
        query = """SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgdeferrable AND tgrelid = ANY (%s::oid[]))
                       OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferrable AND conrelid = ANY (%s::oid[]))"""
        return bool(self.rows(query, array(oids), array(oids))[0][0])

    def indexes(self, oid: int) -> list[Index]:
        """The valid indexes of a relation, its primary key first."""
        return _records(Index, self.rows(_INDEXES, oid))

    def statistics(self, oid: int) -> list[Statistics]:
        """The statistics objects of a relation."""
        return _records(Statistics, self.rows(_STATISTICS, oid))

    def sequences(self, oid: int) -> list[OwnedSequence]:
        """The sequences that columns of a table own."""
        return _records(OwnedSequence, self.rows(_SEQUENCES, oid))

    def triggers(self, oid: int) -> list[Attached]:
        """The triggers of a table, without the server's internal ones."""
        return _records(Attached, self.rows(_TRIGGERS, oid))

    def rules(self, oid: int) -> list[Attached]:
        """The rules of a table."""
        return _records(Attached, self.rows(_RULES.format(where="r.ev_class = %s"), oid))

    def rules_elsewhere(self, oids: Sequence[int]) -> list[Attached]:
        """The rules of other relations that refer to these."""
        where = _BY_DEPENDENCY.format(column="r.ev_class", alias="r", catalog="pg_catalog.pg_rewrite")
        return _records(Attached, self.rows(_RULES.format(where=where), oids=array(oids)))

    def policies(self, oid: int) -> list[Policy]:
        """The row security policies of a table."""
        return _records(Policy, self.rows(_POLICIES.format(where="p.polrelid = %s"), oid))

    def policies_elsewhere(self, oids: Sequence[int]) -> list[Policy]:
        """The policies of other tables that refer to these."""
        where = _BY_DEPENDENCY.format(column="p.polrelid", alias="p", catalog="pg_catalog.pg_policy")
        return _records(Policy, self.rows(_POLICIES.format(where=where), oids=array(oids)))

    def publications(self, oid: int) -> list[Publication]:
        """The publications that name a table."""
        return _records(Publication, self.rows(_PUBLICATIONS, oid))

    def grants(self, oid: int) -> list[Grant]:
        """All privileges on a relation and its columns, including the owner's."""
        return _records(Grant, self.rows(_GRANTS, oid=oid))

    def owner_privileges(self, oid: int) -> set[str]:
        """The privileges that the owner of a relation has by default."""
        return {str(privilege) for (privilege,) in self.rows(_OWNER_PRIVILEGES, oid)}

    def default_grantees(self, maker: str, schema: str | None, kind: str) -> list[str | None]:
        """The roles that get default privileges on new objects of a role; None stands for PUBLIC.

        :param maker: the role that creates the objects
        :param kind: 'r' for tables, 'S' for sequences
        """
        return [grantee for (grantee,) in self.rows(_DEFAULT_GRANTEES, maker, kind, schema)]

    def views_over(self, oids: Sequence[int]) -> list[View]:
        """The views and materialized views whose queries refer to these relations."""
        rows = [_frozen(list(row)) for row in self.rows(_VIEWS_OVER, array(oids))]
        return [View(Relation(*row[:-2]), *row[-2:]) for row in rows]

    @cached_property
    def user(self) -> str:
        """The current role of this connection."""
        return str(self.rows("SELECT current_user")[0][0])


def array(oids: Sequence[int]) -> str:
    """OIDs as the text of an array of PostgreSQL."""
    return "{" + ",".join(map(str, oids)) + "}"


def _records(kind: type[Record], rows: Sequence[Any]) -> list[Record]:
    return [kind(*map(_frozen, row)) for row in rows]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
