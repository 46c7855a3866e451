"""What hangs on tables of PostgreSQL, as one fingerprint: each object that plan or switch looks at, with its row's last writer.

A kind of object that is carried over or refused has its catalog here, or it could come between the look and the locks unseen.
"""

from __future__ import annotations

CATALOGS = {
    # The relations themselves, the views over them, their indexes and sequences: names, owners, privileges, options.
    "pg_class": "SELECT c.oid || ' ' || c.xmin FROM pg_catalog.pg_class c JOIN parts p ON p.oid = c.oid",
    "pg_attribute": "SELECT a.attrelid || ' ' || a.attnum || ' ' || a.xmin FROM pg_catalog.pg_attribute a JOIN parts p ON p.oid = a.attrelid",
    "pg_attrdef": "SELECT f.oid || ' ' || f.xmin FROM pg_catalog.pg_attrdef f JOIN ours o ON o.oid = f.adrelid",
    "pg_sequence": "SELECT q.seqrelid || ' ' || q.xmin FROM pg_catalog.pg_sequence q JOIN parts p ON p.oid = q.seqrelid",
    "pg_index": "SELECT i.indexrelid || ' ' || i.xmin FROM pg_catalog.pg_index i JOIN ours o ON o.oid = i.indrelid",
    "pg_constraint": "SELECT k.oid || ' ' || k.xmin FROM pg_catalog.pg_constraint k JOIN keys ON keys.oid = k.oid",
    "pg_trigger": "SELECT t.oid || ' ' || t.xmin FROM pg_catalog.pg_trigger t JOIN ours o ON o.oid = t.tgrelid",
    "pg_policy": "SELECT p.oid || ' ' || p.xmin FROM pg_catalog.pg_policy p JOIN ours o ON o.oid = p.polrelid",
    "pg_rewrite": "SELECT r.oid || ' ' || r.xmin FROM pg_catalog.pg_rewrite r JOIN ours o ON o.oid = r.ev_class",
    "pg_statistic_ext": "SELECT s.oid || ' ' || s.xmin FROM pg_catalog.pg_statistic_ext s JOIN ours o ON o.oid = s.stxrelid",
    "pg_inherits": "SELECT h.inhrelid || ' ' || h.inhparent FROM pg_catalog.pg_inherits h JOIN ours o ON o.oid IN (h.inhrelid, h.inhparent)",
    "pg_seclabel": "SELECT l.objoid || ' ' || l.label FROM pg_catalog.pg_seclabel l JOIN parts p ON p.oid = l.objoid",
    "pg_subscription_rel": "SELECT s.srsubid || ' ' || s.srrelid FROM pg_catalog.pg_subscription_rel s JOIN ours o ON o.oid = s.srrelid",
    # All of them: one may be for all tables, or for all of a schema, and has nothing to do with ours by any other catalog.
    "pg_publication": "SELECT p.oid || ' ' || p.xmin FROM pg_catalog.pg_publication p",
    "pg_publication_namespace": "SELECT s.oid || ' ' || s.xmin FROM pg_catalog.pg_publication_namespace s",
    "pg_publication_rel": "SELECT u.oid || ' ' || u.xmin FROM pg_catalog.pg_publication_rel u JOIN ours o ON o.oid = u.prrelid",
    # By its index: it is the longest of all, with what the server itself has in it.
    "pg_description": """SELECT said FROM things t CROSS JOIN LATERAL (
        SELECT m.objoid || ' ' || m.objsubid || ' ' || m.xmin FROM pg_catalog.pg_description m WHERE m.objoid = t.oid OFFSET 0) of_thing(said)""",
    # What speaks of them: functions, views, rules and policies of others, keys of others.
    "pg_depend": """SELECT d.classid || ' ' || d.objid || ' ' || d.objsubid || ' ' || d.refobjid || ' ' || d.refobjsubid || ' ' || d.xmin
         FROM spoken_of s JOIN pg_catalog.pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.oid
        WHERE d.objid NOT IN (SELECT oid FROM defaults_of_retired)""",
    "pg_extension": """SELECT d.objid || ' ' || d.refobjid FROM things t JOIN pg_catalog.pg_depend d ON d.objid = t.oid
          AND d.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass)
          AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass""",
}
"""By catalog, what a row of it says of our tables."""

_FACTS = "\n    UNION ALL ".join(f"SELECT '{catalog} ' || said FROM ({query}) f(said)" for catalog, query in CATALOGS.items())

QUERY = f"""
WITH RECURSIVE ours(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = ANY (%s)
    UNION
    SELECT r.ev_class FROM ours o
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid
                                 AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
), parts(oid) AS (
    SELECT oid FROM ours
    UNION SELECT x.indexrelid FROM pg_catalog.pg_index x JOIN ours o ON o.oid = x.indrelid
    UNION SELECT s.oid FROM ours o
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid
                                 AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
      JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
), keys(oid) AS (
    SELECT k.oid FROM pg_catalog.pg_constraint k JOIN ours o ON o.oid = k.conrelid
    UNION SELECT d.objid FROM ours o
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid
                                 AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
), spoken_of(classid, oid) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid FROM parts
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM keys
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM ours o JOIN pg_catalog.pg_class c ON c.oid = o.oid
      JOIN pg_catalog.pg_type r ON r.oid = c.reltype JOIN pg_catalog.pg_type t ON t.oid IN (r.oid, r.typarray)
), defaults_of_retired(oid) AS (
    -- A serial column of theirs uses the live one's sequence, and they are dropped within the switch.
    SELECT f.oid FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_class c ON c.oid = f.adrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY (%s)
), things(oid) AS (
    SELECT oid FROM parts UNION SELECT oid FROM keys
    UNION SELECT t.oid FROM pg_catalog.pg_trigger t JOIN ours o ON o.oid = t.tgrelid
    UNION SELECT p.oid FROM pg_catalog.pg_policy p JOIN ours o ON o.oid = p.polrelid
    UNION SELECT r.oid FROM pg_catalog.pg_rewrite r JOIN ours o ON o.oid = r.ev_class
    UNION SELECT s.oid FROM pg_catalog.pg_statistic_ext s JOIN ours o ON o.oid = s.stxrelid
), facts(fact) AS (
    {_FACTS}
)
SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(fact, ',' ORDER BY fact), '')) FROM facts"""
"""Takes the schema and the names of the tables, green ones included; and again, with the names of the retired ones."""
