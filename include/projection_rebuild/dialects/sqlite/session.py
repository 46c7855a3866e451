"""The settings of the engine's connections to SQLite. The engine leaves a file's own settings (journal, encoding) as they are."""

from __future__ import annotations

from projection_rebuild.dialects.base.settings import Setting

BUSY_TIMEOUT_MS = 60_000
"""SQLite gives its lock to waiting writers in no fixed order: on a busy machine one of them may wait for many of the others."""

SETTINGS = (
    Setting("busy_timeout", str(BUSY_TIMEOUT_MS), "any other writer would be an error at once; a swap sets its own"),
    Setting("legacy_alter_table", "1", "foreign keys, views and triggers of others would follow a rename to the retired table"),
    Setting("foreign_keys", "0", "a rename would carry foreign keys along; verification looks for rows without parents instead"),
    Setting("writable_schema", "0", "a swap that failed may have left it on"),
    Setting("ignore_check_constraints", "0", "rows that break a CHECK would go in"),
    Setting("locking_mode", "normal", "the file would stay locked when a transaction has ended"),
    Setting("read_uncommitted", "0", "the engine would read uncommitted rows"),
    Setting("reverse_unordered_selects", "0", "SQL of projectors without an ORDER BY would give another result"),
    Setting("case_sensitive_like", "0", "SQL of projectors and specs with LIKE would give another result"),
    Setting("count_changes", "0", "an INSERT would return a result, which the engine does not read"),
    Setting("full_column_names", "0", "columns of results would have other names"),
    Setting("short_column_names", "1", "columns of results would have other names"),
)

STATEMENTS = tuple(f"PRAGMA {setting.name} = {setting.value}" for setting in SETTINGS)
