"""The fingerprint of live tables on PostgreSQL: each dependent object that the plan or the swap reads, with its row's last writer.

Each kind of object that a rebuild carries over or refuses needs its catalog here. Otherwise the engine would miss an object that is
created between the check and the locks.
"""

from __future__ import annotations

CATALOGS = {
    # The relations themselves, the views over them, their indexes and sequences: names, owners, privileges, options.
    "pg_class": "SELECT c.oid || ' ' || c.xmin FROM pg_catalog.pg_class c JOIN parts p ON p.oid = c.oid",
    "pg_attribute": "SELECT a.attrelid || ' ' || a.attnum || ' ' || a.xmin FROM pg_catalog.pg_attribute a JOIN parts p ON p.oid = a.attrelid",
    "pg_attrdef": "SELECT f.oid || ' ' || f.xmin FROM pg_catalog.pg_attrdef f JOIN relations o ON o.oid = f.adrelid",
    "pg_sequence": "SELECT q.seqrelid || ' ' || q.xmin FROM pg_catalog.pg_sequence q JOIN parts p ON p.oid = q.seqrelid",
    "pg_index": "SELECT i.indexrelid || ' ' || i.xmin FROM pg_catalog.pg_index i JOIN relations o ON o.oid = i.indrelid",
    "pg_constraint": "SELECT k.oid || ' ' || k.xmin FROM pg_catalog.pg_constraint k JOIN keys ON keys.oid = k.oid",
    "pg_trigger": "SELECT t.oid || ' ' || t.xmin FROM pg_catalog.pg_trigger t JOIN relations o ON o.oid = t.tgrelid",
    "pg_policy": "SELECT p.oid || ' ' || p.xmin FROM pg_catalog.pg_policy p JOIN relations o ON o.oid = p.polrelid",
    "pg_rewrite": "SELECT r.oid || ' ' || r.xmin FROM pg_catalog.pg_rewrite r JOIN relations o ON o.oid = r.ev_class",
    "pg_statistic_ext": "SELECT s.oid || ' ' || s.xmin FROM pg_catalog.pg_statistic_ext s JOIN relations o ON o.oid = s.stxrelid",
    "pg_inherits": "SELECT h.inhrelid || ' ' || h.inhparent FROM pg_catalog.pg_inherits h JOIN relations o ON o.oid IN (h.inhrelid, h.inhparent)",
    "pg_seclabel": "SELECT l.objoid || ' ' || l.label FROM pg_catalog.pg_seclabel l JOIN parts p ON p.oid = l.objoid",
    "pg_subscription_rel": "SELECT s.srsubid || ' ' || s.srrelid FROM pg_catalog.pg_subscription_rel s JOIN relations o ON o.oid = s.srrelid",
    # All publications: one for all tables, or for all tables of a schema, is linked to a table by no other catalog.
    "pg_publication": "SELECT p.oid || ' ' || p.xmin FROM pg_catalog.pg_publication p",
    "pg_publication_namespace": "SELECT s.oid || ' ' || s.xmin FROM pg_catalog.pg_publication_namespace s",
    "pg_publication_rel": "SELECT u.oid || ' ' || u.xmin FROM pg_catalog.pg_publication_rel u JOIN relations o ON o.oid = u.prrelid",
    # OFFSET 0 makes the planner use the index: this is the largest catalog, as it has the comments on the server's own objects.
    "pg_description": """SELECT fact FROM objects t CROSS JOIN LATERAL (
        SELECT m.objoid || ' ' || m.objsubid || ' ' || m.xmin FROM pg_catalog.pg_description m WHERE m.objoid = t.oid OFFSET 0) of_object(fact)""",
    # Objects that refer to the tables: functions, views, rules and policies of others, keys of others.
    "pg_depend": """SELECT d.classid || ' ' || d.objid || ' ' || d.objsubid || ' ' || d.refobjid || ' ' || d.refobjsubid || ' ' || d.xmin
         FROM referenced s JOIN pg_catalog.pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.oid
        WHERE d.objid NOT IN (SELECT oid FROM defaults_of_retired)""",
    "pg_extension": """SELECT d.objid || ' ' || d.refobjid FROM objects t JOIN pg_catalog.pg_depend d ON d.objid = t.oid
          AND d.classid IN ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass)
          AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass""",
}
"""By catalog, a query for its rows about the tables, each as one text."""

_FACTS = "\n    UNION ALL ".join(f"SELECT '{catalog} ' || fact FROM ({query}) f(fact)" for catalog, query in CATALOGS.items())

QUERY = f"""
WITH RECURSIVE relations(oid) AS (
    SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relname = ANY (%s)
    UNION
    SELECT r.ev_class FROM relations o
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid
                                 AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
), parts(oid) AS (
    SELECT oid FROM relations
    UNION SELECT x.indexrelid FROM pg_catalog.pg_index x JOIN relations o ON o.oid = x.indrelid
    UNION SELECT s.oid FROM relations o
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid
                                 AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i')
      JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'
), keys(oid) AS (
    SELECT k.oid FROM pg_catalog.pg_constraint k JOIN relations o ON o.oid = k.conrelid
    UNION SELECT d.objid FROM relations o
      JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = o.oid
                                 AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
), referenced(classid, oid) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid FROM parts
    UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM keys
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid FROM relations o JOIN pg_catalog.pg_class c ON c.oid = o.oid
      JOIN pg_catalog.pg_type r ON r.oid = c.reltype JOIN pg_catalog.pg_type t ON t.oid IN (r.oid, r.typarray)
), defaults_of_retired(oid) AS (
    -- The serial column of a retired table uses the live table's sequence, and the cutover drops retired tables.
    SELECT f.oid FROM pg_catalog.pg_attrdef f JOIN pg_catalog.pg_class c ON c.oid = f.adrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = ANY (%s)
), objects(oid) AS (
    SELECT oid FROM parts UNION SELECT oid FROM keys
    UNION SELECT t.oid FROM pg_catalog.pg_trigger t JOIN relations o ON o.oid = t.tgrelid
    UNION SELECT p.oid FROM pg_catalog.pg_policy p JOIN relations o ON o.oid = p.polrelid
    UNION SELECT r.oid FROM pg_catalog.pg_rewrite r JOIN relations o ON o.oid = r.ev_class
    UNION SELECT s.oid FROM pg_catalog.pg_statistic_ext s JOIN relations o ON o.oid = s.stxrelid
), facts(fact) AS (
    {_FACTS}
)
SELECT pg_catalog.md5(coalesce(pg_catalog.string_agg(fact, ',' ORDER BY fact), '')) FROM facts"""
"""Parameters: the schema and the names of the tables, blue and green; then the schema and the names of the retired tables."""
