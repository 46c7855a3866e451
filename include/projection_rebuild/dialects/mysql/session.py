"""MySQL and MariaDB: settings of the engine's sessions, and checks of the settings that it cannot change.

It also checks the settings of the application's sessions for ``project_live``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from projection_rebuild.dialects.base.settings import Setting
from projection_rebuild.model.findings import Finding

MODES = {
    "STRICT_ALL_TABLES": "a value that does not fit is an error, never a silent cut",
    "STRICT_TRANS_TABLES": "as STRICT_ALL_TABLES",
    "NO_ENGINE_SUBSTITUTION": "a missing storage engine is an error",
}
"""The modes of sql_mode that are always on, with reasons."""

STORING_MODES = {
    "ALLOW_INVALID_DATES": "31 February is a date",
    "EMPTY_STRING_IS_NULL": "an empty text is stored as null (MariaDB)",
    "NO_AUTO_VALUE_ON_ZERO": "0 is an id, not the next one",
    "TIME_ROUND_FRACTIONAL": "fractions of a second are rounded (MariaDB)",
    "TIME_TRUNCATE_FRACTIONAL": "fractions of a second are cut (MySQL)",
}
"""The modes of sql_mode that decide what a table stores of a value; they stay as on the server, as in the application."""

READING_MODES = {
    "ANSI_QUOTES": "double quotes stand around names",
    "ERROR_FOR_DIVISION_BY_ZERO": "a division by zero is an error and not null, where rows are written",
    "HIGH_NOT_PRECEDENCE": "how NOT binds",
    "IGNORE_SPACE": "a blank may stand between a function and its arguments",
    "NO_BACKSLASH_ESCAPES": "a backslash in a text is a letter",
    "NO_UNSIGNED_SUBTRACTION": "a difference of unsigned numbers may be negative",
    "ONLY_FULL_GROUP_BY": "which queries with GROUP BY are refused",
    "PIPES_AS_CONCAT": "what || does",
    "REAL_AS_FLOAT": "which type REAL is",
    "SIMULTANEOUS_ASSIGNMENT": "whether an UPDATE sees what it has set already (MariaDB)",
}
"""The modes of sql_mode that stay as on the server, because authors have written SQL of projectors and specs for them.

The engine's own SQL works in all of them.
"""

ZONE = "+00:00"
SILENCE = "28800"
"""Seconds of silence after which the server ends a connection, unless a cutover sets less; the server's own default."""

TABLE_LOCK_WAIT, _ROW_LOCK_WAIT = "600", "50"
_LOCKS = "a wait for a lock would have no end in sight, or end too early; a switch sets its own"
_ALL = "18446744073709551615"

_ENDS = "the server would end a statement or a connection in mid-work"
_REFUSED = "the server would refuse the engine's statements"
_CUT = "results would be cut without a word"
_SQL = "SQL of projectors and specs would give another result"
_NOW = "a null would be stored as the time of the write"
_SHOWN = "SHOW CREATE TABLE would write tables in another way"

COMMON = (
    Setting("sql_mode", "", "see below"),
    Setting(
        "autocommit",
        "ON",
        "what a statement does would not be committed; the driver may be wrong about what it is",
    ),
    Setting("time_zone", ZONE, "TIMESTAMP columns would be written and read as other moments"),
    Setting("collation_connection", "utf8mb4_bin", "texts that differ would be one, where neither is a column"),
    Setting("completion_type", "NO_CHAIN", "a COMMIT would begin another transaction, which stays open, or end the connection"),
    Setting("foreign_key_checks", "ON", "rows without parents would go in"),
    Setting("unique_checks", "ON", "the same key could go in twice"),
    Setting("sql_safe_updates", "OFF", f"{_REFUSED} that update or delete without a key"),
    Setting("sql_select_limit", _ALL, _CUT),
    Setting("sql_big_selects", "ON", f"{_REFUSED} that read many rows (max_join_size)"),
    Setting("sql_auto_is_null", "OFF", "x IS NULL would find a row whose x is not null"),
    Setting("sql_quote_show_create", "ON", _SHOWN),
    Setting("sql_notes", "ON", "what the server only notes about a file that it has read would not be counted"),
    Setting("sql_warnings", "OFF", "an INSERT would return a result that the engine does not read"),
    Setting("default_storage_engine", "InnoDB", "tables of a new structure would have no transactions"),
    Setting("default_tmp_storage_engine", "InnoDB", "temporary tables would have no transactions"),
    Setting("wait_timeout", SILENCE, f"{_ENDS}; a switch sets its own"),
    Setting("net_read_timeout", "30", f"{_ENDS}, when a message of the engine takes a while"),
    Setting("net_write_timeout", "60", f"{_ENDS}, while the engine works on a page of events"),
    Setting("lock_wait_timeout", TABLE_LOCK_WAIT, _LOCKS),
    Setting("innodb_lock_wait_timeout", _ROW_LOCK_WAIT, _LOCKS),
    Setting("group_concat_max_len", "1048576", _CUT),
    Setting("max_sort_length", "1024", "long texts would be sorted by their first letters only"),
    Setting("div_precision_increment", "4", _SQL),
    Setting("default_week_format", "0", _SQL),
    Setting("lc_time_names", "en_US", f"{_SQL}: names of months and days"),
    Setting("lc_messages", "en_US", "errors would be in another language"),
    Setting("timestamp", "", "NOW() would stand still; DEFAULT is the clock"),
)

MYSQL = (
    Setting("explicit_defaults_for_timestamp", "ON", _NOW),
    Setting("max_execution_time", "0", _ENDS),
    Setting("information_schema_stats_expiry", "0", "sizes and counters would be up to a day old"),
    Setting("show_create_table_verbosity", "OFF", _SHOWN),
    Setting(
        "show_gipk_in_create_table_and_information_schema",
        "ON",
        "a key that the server has made would not be copied",
        since=(8, 0, 30),
    ),
    Setting(
        "restrict_fk_on_non_standard_key", "OFF", "foreign keys to columns that are not unique could not be copied", since=(8, 4)
    ),
    Setting("windowing_use_high_precision", "ON", _SQL),
    Setting("cte_max_recursion_depth", "1000", _REFUSED),
    Setting("old_alter_table", "OFF", "indexes would be added by copying the table"),
)

MARIADB = (
    Setting("explicit_defaults_for_timestamp", "ON", _NOW, since=(10, 8, 2)),
    Setting("max_statement_time", "0.000000", f"{_ENDS}; a switch sets its own"),
    Setting("idle_transaction_timeout", "0", _ENDS),
    Setting("idle_readonly_transaction_timeout", "0", _ENDS),
    Setting("idle_write_transaction_timeout", "0", _ENDS),
    Setting("max_session_mem_used", "9223372036854775807", _ENDS),
    Setting("check_constraint_checks", "ON", "rows that break a CHECK would go in"),
    Setting("old_mode", "", "as sql_mode: only UTF8_IS_UTF8MB3 stays as the server has it"),
    Setting("sql_if_exists", "OFF", "a DROP or ALTER of a missing object would be no error"),
    Setting("alter_algorithm", "DEFAULT", "indexes would be added by copying the table, or not at all"),
    Setting("innodb_compression_default", "OFF", "green would be compressed where blue is not"),
    Setting("innodb_default_encryption_key_id", "1", "green would have another key than blue"),
    Setting("default_regex_flags", "", _SQL),
    Setting("standard_compliant_cte", "ON", _SQL),
    Setting("max_recursive_iterations", "1000", _CUT),
)

_STRINGS = frozenset(
    {
        *(
            "time_zone",
            "collation_connection",
            "completion_type",
            "default_storage_engine",
            "default_tmp_storage_engine",
            "lc_time_names",
        ),
        *("lc_messages", "default_regex_flags", "alter_algorithm"),
    }
)
"""Settings whose values need quotes."""


def _kept(variable: str, modes: Iterable[str]) -> str:
    return ", ".join(f"CASE WHEN FIND_IN_SET('{mode}', @@SESSION.{variable}) > 0 THEN '{mode}' END" for mode in modes)


def sql_mode(*, without: Collection[str] = ()) -> str:
    """An expression for the sql_mode of the engine's sessions.

    It joins the wanted modes, and removes none from the present text: with EMPTY_STRING_IS_NULL, a removal may return
    NULL, and then any join with it is NULL too.

    :param without: modes to leave out, whatever the server has
    """
    kept = (mode for mode in (*STORING_MODES, *READING_MODES) if mode not in without)
    fixed = ", ".join(f"'{mode}'" for mode in MODES)
    return f"CONCAT_WS(',', {fixed}, {_kept('sql_mode', kept)})"


_OLD_MODE = f"CONCAT_WS(',', {_kept('old_mode', ['UTF8_IS_UTF8MB3'])})"

SMALLEST_PACKET = 1024 * 1024

Query = Callable[..., Any]
"""Executes SQL with bound values."""


def settings(own: Iterable[Setting], version: Sequence[int]) -> list[Setting]:
    """The settings that a server has.

    :param own: :data:`MYSQL` or :data:`MARIADB`
    :param version: the server's version
    """
    return [setting for setting in (*COMMON, *own) if tuple(version) >= setting.since]


def statement(own: Iterable[Setting], version: Sequence[int]) -> str:
    """The statement that sets all settings that a server has; parameters as for :func:`settings`."""
    return "SET " + ", ".join(f"SESSION {setting.name} = {_value(setting)}" for setting in settings(own, version))


def _value(setting: Setting) -> str:
    special = {"sql_mode": sql_mode(), "old_mode": _OLD_MODE, "timestamp": "DEFAULT"}
    if setting.name in special:
        return special[setting.name]
    return f"'{setting.value}'" if setting.name in _STRINGS else setting.value


def value(name: str) -> str:
    """The value of a setting of :data:`COMMON`, to restore it after a temporary change."""
    return next(_value(setting) for setting in COMMON if setting.name == name)


# Settings that the engine cannot change -----------------------------------------------------------------------------

_LIVE = """SELECT @@SESSION.sql_mode, @@GLOBAL.sql_mode, @@SESSION.sql_select_limit, @@SESSION.character_set_client,
 @@SESSION.character_set_results"""


def live_problems(query: Query) -> Iterator[str]:
    """Settings of the application's session with which it would write or read other rows than a rebuild."""
    own_modes, server_modes, limit, client, results = query(_LIVE).one()
    own, servers = set(str(own_modes).split(",")), set(str(server_modes).split(","))
    if not own & {"STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"}:
        yield _live_problem(
            "sql_mode has no STRICT_TRANS_TABLES", "values that do not fit would be cut, where a rebuild refuses them"
        )
    if "PAD_CHAR_TO_FULL_LENGTH" in own:
        yield _live_problem("sql_mode has PAD_CHAR_TO_FULL_LENGTH", "handlers would see blanks that no rebuild sees")
    for mode in sorted((own ^ servers) & STORING_MODES.keys()):
        why = f"a rebuild goes by the server's: {STORING_MODES[mode]}"
        yield _live_problem(f"sql_mode {'has' if mode in own else 'lacks'} {mode}, other than the server's own", why)
    if str(limit) != _ALL:
        yield _live_problem(f"sql_select_limit is {limit}", "rows that handlers look for would be missing")
    if {str(client), str(results)} != {"utf8mb4"}:
        problem = f"its character set is {client} ({results} for results)"
        yield _live_problem(problem, "letters that it lacks would be lost, where a rebuild (utf8mb4) keeps them")


def _live_problem(problem: str, why: str) -> str:
    return (
        f"project_live: in this session {problem}: {why}. Nothing has been written for this event; connect with another setting"
    )


def findings(shown: Mapping[str, str]) -> Iterator[Finding]:
    """The plan's findings about settings that the engine's sessions cannot change.

    :param shown: the session's variables, as SHOW VARIABLES returns them
    """
    if shown.get("transaction_read_only", shown.get("tx_read_only", "OFF")) == "ON":
        yield Finding(
            about="transaction_read_only",
            problem="transactions are read-only by default, so an administrator keeps clients from writing to this server",
            remedy="connect to a server that takes writes, or SET GLOBAL transaction_read_only = 0",
            refuses=True,
        )
    engine = shown.get("enforce_storage_engine", "")
    if engine not in ("", "InnoDB"):
        yield Finding(
            about="enforce_storage_engine",
            problem=f"every new table is made as {engine}, which has no transactions",
            remedy="SET GLOBAL enforce_storage_engine = NULL, or InnoDB",
            refuses=True,
        )
    packet = int(shown.get("max_allowed_packet", SMALLEST_PACKET))
    if packet < SMALLEST_PACKET:
        yield Finding(
            about="max_allowed_packet",
            problem=f"{packet:,} bytes are the longest value or statement that this server takes, and a longer event or row ends the replay",
            remedy="SET GLOBAL max_allowed_packet = 64M, and reconnect",
        )


def history(shown: Mapping[str, str]) -> Iterator[Finding]:
    """The plan's finding about a server on which system-versioned tables show an earlier time."""
    if shown.get("system_versioning_asof", "DEFAULT") != "DEFAULT":
        yield Finding(
            about="system_versioning_asof",
            problem="tables with a history are shown as of an earlier time, and later events or rows would be missing without a word",
            remedy="SET GLOBAL system_versioning_asof = DEFAULT",
            refuses=True,
        )


LOOKED_AT = (
    *("enforce_storage_engine", "max_allowed_packet", "sql_generate_invisible_primary_key", "system_versioning_asof"),
    *("transaction_read_only", "tx_read_only"),
)
"""The variables that :func:`findings`, :func:`history` and the checks of tables read."""
