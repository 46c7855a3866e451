"""The settings of the engine's sessions on PostgreSQL, the plan's findings about them, and the settings that ``project_live`` needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from projection_rebuild.dialects.base.settings import Setting
from projection_rebuild.model.findings import Finding

APPLICATION_NAME = "projection_rebuild"

LOCK_WAIT = "10min"
"""The longest wait of a statement for a lock outside a cutover, as on MySQL. After it the step fails with an error, and is retried."""

_LOCKS = "a wait for a lock would never end, or end too early; a swap sets its own"
_ENDS = "the server would end a statement, a transaction or a connection amid a step"
_INPUT = "the server would read statements and values in another way"
_READ_BACK = "the same value would be read as another one"

SETTINGS = (
    Setting("application_name", APPLICATION_NAME, "by it the low-traffic gate tells our sessions from the application's"),
    Setting(
        "client_encoding", "UTF8", "a database in SQL_ASCII would give bytes instead of text, another one would refuse letters"
    ),
    Setting("DateStyle", "ISO", f"{_READ_BACK}; the order of day and month stays the database's"),
    Setting("IntervalStyle", "postgres", _READ_BACK),
    Setting("TimeZone", "UTC", "a time without a zone would be taken for another moment"),
    Setting("bytea_output", "hex", _READ_BACK),
    Setting("extra_float_digits", "1", "floating-point numbers would be read with fewer digits than they have"),
    Setting("xmloption", "content", _INPUT),
    Setting("xmlbinary", "base64", _READ_BACK),
    Setting("standard_conforming_strings", "on", f"{_INPUT}: bytes would be stored as the text of their escapes"),
    Setting("backslash_quote", "safe_encoding", _INPUT),
    Setting("array_nulls", "on", f"{_INPUT}: a null in an array would be the text NULL"),
    Setting("transform_null_equals", "off", f"{_INPUT}: x = NULL would be true"),
    Setting("quote_all_identifiers", "off", "definitions of blue and green would be written in another way"),
    Setting("gin_fuzzy_search_limit", "0", "an index of the kind GIN would give some of its rows only"),
    Setting(
        "row_security",
        "off",
        "policies would silently hide events and rows; with `off` that is an error, and the plan names the table",
    ),
    Setting("restrict_nonsystem_relation_kind", "", "views could not be read", since=(15, 8)),
    Setting("check_function_bodies", "on", "a function that cannot work would be accepted"),
    Setting("default_transaction_isolation", "read committed", "a transaction would not see what committed since it began"),
    Setting("default_transaction_deferrable", "off", "a transaction could wait before it begins"),
    Setting("statement_timeout", "0", _ENDS),
    Setting("lock_timeout", LOCK_WAIT, _LOCKS),
    Setting("transaction_timeout", "0", _ENDS, since=(17,)),
    Setting("idle_in_transaction_session_timeout", "0", f"{_ENDS}; a swap sets its own"),
    Setting("idle_session_timeout", "0", _ENDS),
    Setting("exit_on_error", "off", "any error would end the connection, even one that the engine expects"),
    Setting("default_tablespace", "", "green would be in another tablespace than blue"),
    Setting("temp_tablespaces", "", "our temporary tables would go to a tablespace that we may not use"),
    Setting("default_table_access_method", "heap", "our own tables would have an access method that may lack what they need"),
    Setting(
        "session_replication_role", "origin", "foreign keys would not be checked, and no trigger would fire", restricted=True
    ),
    Setting("ignore_checksum_failure", "off", "damaged pages would be read as if they were whole", restricted=True),
    Setting("zero_damaged_pages", "off", "rows of damaged pages would be silently missing", restricted=True),
)

# As an expression, so that one query makes all settings. It changes a restricted setting only if the role may: an error would fail the
# connection, and the plan could not report the setting.
_MAKE = "pg_catalog.set_config(%s, %s, false)"
_MAKE_IF_THERE = "CASE WHEN pg_catalog.current_setting(%s, true) IS NOT NULL THEN " + _MAKE + " END"
_MAKE_IF_ALLOWED = (
    "CASE WHEN pg_catalog.current_setting(%s, true) <> %s AND pg_catalog.has_parameter_privilege(%s, 'SET') THEN "
    + _MAKE
    + " END"
)

RIGHTS_SINCE = (15,)
"""The first version that has privileges on single settings, and a function that shows them."""

LIVE = {"TimeZone": "UTC", "DateStyle": "ISO", "IntervalStyle": "postgres"}
"""The settings that :func:`~projection_rebuild.replay.inline.project_live` makes during a call. The server reports their changes to the
driver."""

_OTHERS = """SELECT wanted.n, pg_catalog.current_setting(wanted.n) FROM (VALUES {rows}) AS wanted(n, v)
 WHERE pg_catalog.current_setting(wanted.n) <> wanted.v"""

_EVENT_TRIGGERS = """SELECT evtname, evtevent FROM pg_catalog.pg_event_trigger
 WHERE evtenabled IN ('O', 'A') AND evtevent <> 'login' ORDER BY evtname"""

_UNSEEN = (
    "SELECT n FROM pg_catalog.unnest(ARRAY['track_activities', 'track_counts']) n WHERE pg_catalog.current_setting(n) = 'off'"
)

_POLICIES = """SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = ANY (%s) AND pg_catalog.row_security_active(c.oid) ORDER BY 1"""

MAY_CREATE = "SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace WHERE nspname = %s"

Query = Callable[..., Any]
"""Executes SQL with bound values."""


def statement(version: tuple[int, ...]) -> tuple[str, list[str]]:
    """The query that makes all settings, and its values.

    :param version: the server's version; a session on one that is too old gets the settings that exist, so that the plan can report it
    """
    parts: list[str] = []
    values: list[str] = []
    for setting in SETTINGS:
        if setting.restricted:
            if version >= RIGHTS_SINCE:
                parts.append(_MAKE_IF_ALLOWED)
                values += [setting.name, setting.value, setting.name, setting.name, setting.value]
        elif setting.since:
            # Minor versions of several major versions have it, so the query checks whether it exists.
            parts.append(_MAKE_IF_THERE)
            values += [setting.name, setting.name, setting.value]
        else:
            parts.append(_MAKE)
            values += [setting.name, setting.value]
    return "SELECT " + ", ".join(parts), values


def findings(query: Query) -> Iterator[Finding]:
    """Findings about settings that the engine could not make, and about hidden activity of other sessions."""
    restricted = [setting for setting in SETTINGS if setting.restricted]
    rows = ", ".join(["(%s, %s)"] * len(restricted))
    for name, value in query(
        _OTHERS.format(rows=rows), *(word for setting in restricted for word in (setting.name, setting.value))
    ):
        wanted, why = next((setting.value, setting.why) for setting in restricted if setting.name == name)
        yield Finding(
            about=name,
            problem=f"it is {value} in our sessions, and we may not change it: {why}",
            remedy=f"ALTER ROLE or ALTER DATABASE ... SET {name} = {wanted}, or GRANT SET ON PARAMETER {name}",
            refuses=True,
        )
    for (name,) in query(_UNSEEN):
        yield Finding(
            about=name,
            problem="it is off, so that the server does not show what sessions do: the low-traffic gate and the wait for older snapshots "
            "do not see them",
            remedy=f"ALTER SYSTEM SET {name} = on",
        )


def hidden(query: Query, schema: str | None, tables: list[str]) -> Iterator[Finding]:
    """Findings about tables whose policies would hide rows from the engine."""
    for (name,) in query(_POLICIES, schema, tables):
        user = query("SELECT current_user").scalar_one()
        yield Finding(
            about=name,
            problem=f"row-level security would hide rows from {user}, so that events or rows would be silently missing",
            remedy=f"ALTER ROLE {user} BYPASSRLS, or work as the owner of the table",
            refuses=True,
        )


def event_triggers(query: Query) -> dict[str, str]:
    """The names of the event triggers that fire at the engine's DDL, each with its event."""
    return {str(name): str(event) for name, event in query(_EVENT_TRIGGERS)}


def trial(schema: str) -> list[str]:
    """Statements with each kind of DDL of a rebuild, on a trial table that the last one drops.

    :param schema: the schema of the trial table, quoted
    """
    table = f"{schema}.projection_rebuild_trial"
    return [
        "SET LOCAL lock_timeout = 500",
        f"CREATE TABLE {table} (id integer NOT NULL)",
        f"CREATE INDEX projection_rebuild_trial_index ON {table} (id)",
        f"ALTER TABLE {table} ADD CONSTRAINT projection_rebuild_trial_key PRIMARY KEY (id)",
        f"ALTER INDEX {schema}.projection_rebuild_trial_index RENAME TO projection_rebuild_trial_renamed",
        f"COMMENT ON TABLE {table} IS 'of a rebuild'",
        f"GRANT SELECT ON {table} TO CURRENT_USER",
        f"ALTER TABLE {table} RENAME TO projection_rebuild_trial_old",
        f"DROP TABLE {table}_old",
    ]


def live_values(reported: Callable[[str], str | None]) -> dict[str, str]:
    """The settings of :data:`LIVE` that differ in the application's session, with their values there.

    :param reported: the value of a setting that the server last reported to the driver
    """
    values = {name: reported(name) or "" for name in LIVE}
    # DateStyle also has the order of day and month, which stays.
    return {name: value for name, value in values.items() if value.partition(",")[0] != LIVE[name]}


def live_problems(reported: Callable[[str], str | None], float_digits: int) -> Iterator[str]:
    """The reasons why the application's session would write or read other rows than a rebuild.

    :param reported: as for :func:`live_values`
    :param float_digits: the session's extra_float_digits
    """
    for name, wanted in (("client_encoding", "UTF8"), ("standard_conforming_strings", "on")):
        if (value := reported(name)) != wanted:
            yield _live_problem(name, str(value), wanted)
    if float_digits < 1:
        yield _live_problem("extra_float_digits", str(float_digits), "1")


def _live_problem(name: str, value: str, wanted: str) -> str:
    why = next(setting.why for setting in SETTINGS if setting.name == name)
    return (
        f"project_live: {name} is {value} in this session, where a rebuild has {wanted}: {why}. Nothing has been written for this event; "
        f"connect with {name} = {wanted}"
    )
