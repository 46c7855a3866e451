"""Refuses what a rebuild cannot carry over on PostgreSQL: each object by name, with the reason and the remedy."""

from __future__ import annotations

from collections.abc import Iterator

from projection_rebuild.dialects.postgres.catalog import MATERIALIZED_VIEW, PARTITIONED, TABLE, Catalog, Relation, array
from projection_rebuild.dialects.postgres.cutover import Moved, Switch, old_name
from projection_rebuild.dialects.postgres.shadow import green_name
from projection_rebuild.dialects.postgres.target_schema import parsed_schema
from projection_rebuild.model.findings import Finding, refusal

# Objects that refer to a table, its row type, its indexes and constraints, or the sequence of an identity column.
_DEPENDENTS = """
WITH referenced(classid, objid, what) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, %(oid)s::oid, 'table'
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 'row type' FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_type row_type ON row_type.oid = c.reltype
      JOIN pg_catalog.pg_type t ON t.oid IN (row_type.oid, row_type.typarray) WHERE c.oid = %(oid)s
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, x.indexrelid, 'index' FROM pg_catalog.pg_index x WHERE x.indrelid = %(oid)s
    UNION ALL
    SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 'index' FROM pg_catalog.pg_constraint k WHERE k.conrelid = %(oid)s
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, d.objid, 'sequence' FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
       AND d.refobjid = %(oid)s AND d.deptype = 'i' AND d.refobjsubid > 0
)
SELECT DISTINCT r.what, i.type, i.identity FROM referenced r
  JOIN pg_catalog.pg_depend d ON d.refclassid = r.classid AND d.refobjid = r.objid
  LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) i
 WHERE t.oid IS NULL OR NOT (t.tgisinternal OR t.tgrelid = ANY (%(moved)s::oid[]))
 ORDER BY 1, 2, 3"""

# The kinds that a rebuild carries over, by what they depend on; it refuses all others. A rule may be a view's query.
_CARRIED = {
    "table": {
        "index",
        "toast table",
        "sequence",
        "type",
        "composite type",
        "default value",
        "table constraint",
        "rule",
        "policy",
        "publication relation",
        "statistics object",
    },
    "row type": {"type"},
    "index": {"index", "table constraint", "rule"},
    "sequence": set[str](),
}
_WHY = {
    "table": "is bound to this very table and would stay on the retired one",
    "row type": "uses the table's row type, and would be left with that of the retired table",
    "index": "is bound to an index or constraint of this very table and would stay on the retired one",
    "sequence": "uses the sequence of an identity column, and would go on with that of the retired table",
}

# Properties of a table that make its rebuild impossible, by kind: problem, remedy, condition.
_FACTS = {
    "partitioned table": (
        "it is partitioned, and its partitions would stay on the retired table",
        "rebuild a plain table",
        "c.relkind = 'p'",
    ),
    "partition": (
        "it is a partition, and a rebuild would take it out of its parent",
        "rebuild a plain table",
        "c.relispartition",
    ),
    "inheritance": (
        "it inherits from another table, or another from it, and a rebuild would cut that",
        "rebuild a plain table",
        """
        NOT c.relispartition AND c.relkind <> 'p'
        AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE c.oid IN (h.inhrelid, h.inhparent))""",
    ),
    "typed table": (
        "it is a typed table (OF a type), which cannot be copied",
        "make it a plain table",
        "c.reloftype <> 0",
    ),
    "foreign table": ("it is a foreign table", "rebuild it where it is a plain one", "c.relkind = 'f'"),
    "security label": (
        "it has a security label, which only its provider can set",
        "remove the label",
        "EXISTS (SELECT FROM pg_catalog.pg_seclabel l WHERE l.objoid = c.oid)",
    ),
    "subscription": (
        "it is the target of a subscription, whose rows would go to the retired table",
        "leave it out of the rebuild",
        "EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = c.oid)",
    ),
    "forced row security": (
        "it has FORCE ROW LEVEL SECURITY, and this connection would see only what its policies show",
        "give our role BYPASSRLS",
        "pg_catalog.row_security_active(c.oid)",
    ),
}

# Objects on one table, by kind: problem, remedy, query.
_NAMED = {
    "invalid index": (
        "the invalid index {0}: the engine cannot know whether it is wanted",
        "REINDEX or drop it",
        """
        SELECT i.relname FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
         WHERE NOT x.indisvalid AND x.indrelid = %(oid)s""",
    ),
    "extension": (
        "the extension {0}: the table or something on it belongs to it or depends on it, which cannot be carried over",
        "take it out (ALTER EXTENSION ... DROP, or NO DEPENDS ON EXTENSION)",
        """
        SELECT DISTINCT e.extname FROM pg_catalog.pg_depend d
          JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
         WHERE d.deptype IN ('e', 'x') AND (d.objid = %(oid)s
            OR d.objid IN (SELECT x.indexrelid FROM pg_catalog.pg_index x WHERE x.indrelid = %(oid)s)
            OR d.objid IN (SELECT t.oid FROM pg_catalog.pg_trigger t WHERE t.tgrelid = %(oid)s))""",
    ),
    "publication of all tables": (
        "the publication {0}: it publishes all tables (or all of the schema), the green one included, which its subscribers do not have",
        "let it name its tables",
        """
        SELECT p.pubname FROM pg_catalog.pg_publication p WHERE p.puballtables
        UNION
        SELECT p.pubname FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
          JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid WHERE c.oid = %(oid)s""",
    ),
    "grantor": (
        "the role {0}: it has granted privileges on the table, and this connection cannot act for it",
        "make our role a member of it",
        """
        SELECT DISTINCT pg_catalog.pg_get_userbyid(a.grantor) FROM pg_catalog.pg_class c
         CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
         WHERE c.oid = %(oid)s AND a.grantor <> c.relowner AND NOT pg_catalog.pg_has_role(a.grantor, 'MEMBER')""",
    ),
    "publication's owner": (
        "the publication {0}: only its owner can change it",
        "make our role a member of that role",
        """
        SELECT p.pubname FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
         WHERE r.prrelid = %(oid)s AND NOT pg_catalog.pg_has_role(p.pubowner, 'MEMBER')""",
    ),
    "owner without CREATE": (
        "the owner {0}: it may not create in the schema, so that nothing new can be given to it",
        "GRANT CREATE ON SCHEMA",
        """
        SELECT pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.pg_class c
         WHERE c.oid = %(oid)s AND NOT pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'CREATE')""",
    ),
}

KINDS = (
    *_FACTS,
    *_NAMED,
    *(f"what is bound to the {what}" for what in _WHY),
    *("owner", "taken name", "temporary view", "partitioned child", "parent that we may not lock"),
)
"""The kinds of objects and properties for which the plan refuses a rebuild."""

_TAKEN = """
SELECT c.oid, coalesce(x.indrelid, (
           SELECT d.refobjid FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
              AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass), c.oid)::bigint
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid
 WHERE n.nspname = %s AND c.relname = %s
UNION ALL
SELECT s.oid, s.stxrelid::bigint FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
 WHERE n.nspname = %s AND s.stxname = %s"""


Why = tuple[str, str]
"""The problem of an object, and the remedy."""


def refusals(catalog: Catalog, switch: Switch) -> list[Finding]:
    """The findings about everything that the swap of these tables would lose."""
    findings: list[Finding] = []
    for moved in switch.moved:
        findings += [refusal(moved.names.blue, *why) for why in _about(catalog, moved, switch)]
    findings += _others(catalog, switch)
    return list(dict.fromkeys(findings))


def left_on(catalog: Catalog, old: Relation | None) -> Iterator[str]:
    """Objects on a retired table that the plan would have refused: they were created during the cutover."""
    if old is None:
        return
    for what, kind, identity in catalog.rows(_DEPENDENTS, oid=old.oid, moved=array([old.oid])):
        if kind not in _CARRIED[what]:
            yield f"{kind} {identity} is bound to {old.name}"


def _about(catalog: Catalog, moved: Moved, switch: Switch) -> Iterator[Why]:
    oid = moved.blue.oid
    facts = ", ".join(f"({condition})" for _, _, condition in _FACTS.values())
    (flags,) = catalog.rows(f"SELECT {facts} FROM pg_catalog.pg_class c WHERE c.oid = %s", oid)
    impossible = [(problem, remedy) for (problem, remedy, _), flag in zip(_FACTS.values(), flags, strict=True) if flag]
    if impossible:
        yield from impossible
        return
    for problem, remedy, query in _NAMED.values():
        yield from ((problem.format(name), remedy) for (name,) in catalog.rows(query, oid=oid))
    for what, kind, identity in catalog.rows(_DEPENDENTS, oid=oid, moved=array(switch.oids)):
        if kind not in _CARRIED[what]:
            remedy = f"drop it before the rebuild and make it again after{_ADVICE.get(kind, '')}"
            yield f"the {kind} {identity} {_WHY[what]}", remedy
    yield from _of_another_owner(catalog, moved.blue)
    yield from _taken(catalog, moved)


_ADVICE = {"function": ", or write its body as a string and give it types of its own"}


def _others(catalog: Catalog, switch: Switch) -> Iterator[Finding]:
    """Findings about objects outside the run that the swap has to change."""
    for view in switch.views:
        if view.relation.persistence == "t":
            problem = "this temporary view of a session would go on with the retired table"
            yield refusal(view.relation.name, problem, "wait for that session")
        else:
            yield from (refusal(view.relation.name, *why) for why in _of_another_owner(catalog, view.relation))
    children = {catalog.named(key.child) for key in switch.border_keys}
    for relation in children:
        if relation.kind == PARTITIONED:
            problem = "it is partitioned, and its foreign key cannot be moved to another table"
            yield refusal(relation.name, problem, "drop the key")
    speaking = {catalog.named(rule.relation) for rule in switch.rules_elsewhere}
    speaking |= {catalog.named(policy.relation) for policy in switch.policies_elsewhere}
    for relation in children | speaking:
        yield from (refusal(relation.name, *why) for why in _of_another_owner(catalog, relation))
    for name in dict.fromkeys(key.parent for key in switch.border_keys):
        query = """SELECT pg_catalog.has_table_privilege(%s::pg_catalog.regclass, 'REFERENCES')
                      AND pg_catalog.has_table_privilege(%s::pg_catalog.regclass, 'UPDATE, DELETE, TRUNCATE')"""
        if not catalog.rows(query, name, name)[0][0]:
            problem = "a foreign key points to it, and our role may not lock it or refer to it"
            yield refusal(name, problem, "GRANT UPDATE, REFERENCES on it")


def _of_another_owner(catalog: Catalog, relation: Relation) -> Iterator[Why]:
    # The membership option SET exists since PostgreSQL 16. Without it, a member cannot give objects to the role.
    may = """SELECT pg_catalog.pg_has_role(%(owner)s, 'USAGE') AND pg_catalog.pg_has_role(%(owner)s,
             CASE WHEN pg_catalog.current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)"""
    if not catalog.rows(may, owner=relation.owner)[0][0]:
        yield (
            f"it belongs to {relation.owner}, and {catalog.user} may not change it",
            f"make {catalog.user} a member of {relation.owner} that inherits from it",
        )


def _taken(catalog: Catalog, moved: Moved) -> Iterator[Why]:
    """Names that objects of green and old need, and another object has."""
    own_relations = [catalog.find(moved.names.schema, name) for name in (moved.names.green, moved.names.old)]
    own_oids = {
        relation.oid for relation in own_relations if relation is not None and relation.kind in (TABLE, MATERIALIZED_VIEW)
    }
    oid = moved.blue.oid
    named = [(moved.names.schema, index.name) for index in catalog.indexes(oid)]
    named += [(statistics.schema, statistics.name) for statistics in catalog.statistics(oid)]
    named += [(sequence.schema, sequence.name) for sequence in catalog.sequences(oid) if sequence.identity]
    if structure := parsed_schema(moved.names):
        new = [(moved.names.schema, index.name) for index in structure.indexes]
        new += [(statistics.schema, statistics.name) for statistics in structure.statistics]
        new += [(sequence.schema, sequence.name) for sequence in structure.sequences]
        for schema, name in new:
            if any(on != oid for _, on in catalog.rows(_TAKEN, schema, name, schema, name)):
                yield f"the new structure needs the name {name}, and something else has it", "give another name"
        named += [name for name in new if name not in named]
    for schema, name in named:
        for needed in (green_name(name), old_name(name)):
            for _, on in catalog.rows(_TAKEN, schema, needed, schema, needed):
                if on not in own_oids:
                    problem = f"the name {needed} is needed for the double of {name}, and something else has it"
                    yield problem, "rename or drop that"
    if moved.blue.kind == MATERIALIZED_VIEW:
        yield from _foreign_doubles(catalog, moved)


def _foreign_doubles(catalog: Catalog, moved: Moved) -> Iterator[Why]:
    """Relations that have the name of a materialized view's double, but are no materialized views."""
    for name in (moved.names.green, moved.names.old):
        relation = catalog.find(moved.names.schema, name)
        if relation is not None and relation.kind != MATERIALIZED_VIEW:
            yield f"the name {name} is needed for its double, and something else has it", "rename or drop that"
