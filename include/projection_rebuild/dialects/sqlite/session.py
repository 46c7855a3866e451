"""SQLite: the settings of our connections. A file's own settings (journal, encoding) stay as they are."""

from __future__ import annotations

from projection_rebuild.dialects.base.settings import Setting

BUSY_TIMEOUT_MS = 60_000
"""SQLite wakes its waiting writers in no order: on a busy machine one of several may wait for many turns of the others."""

SETTINGS = (
    Setting("busy_timeout", str(BUSY_TIMEOUT_MS), "a writer beside us would be an error at once; a switch sets its own"),
    Setting("legacy_alter_table", "1", "foreign keys, views and triggers of others would follow a rename to the retired table"),
    Setting("foreign_keys", "0", "a rename would carry foreign keys along; verification looks for rows without parents instead"),
    Setting("writable_schema", "0", "a switch that was given up may have left it on"),
    Setting("ignore_check_constraints", "0", "rows that break a CHECK would go in"),
    Setting("locking_mode", "normal", "the file would stay locked when a transaction has ended"),
    Setting("read_uncommitted", "0", "rows would be read that nobody has committed"),
    Setting("reverse_unordered_selects", "0", "SQL of projectors without an ORDER BY would give another result"),
    Setting("case_sensitive_like", "0", "SQL of projectors and specs with LIKE would give another result"),
    Setting("count_changes", "0", "an INSERT would give a result that nobody reads"),
    Setting("full_column_names", "0", "columns of results would have other names"),
    Setting("short_column_names", "1", "columns of results would have other names"),
)

STATEMENTS = tuple(f"PRAGMA {each.name} = {each.value}" for each in SETTINGS)
