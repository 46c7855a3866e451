"""Classifies the errors of MySQL, MariaDB and mysqlclient by number.

See https://dev.mysql.com/doc/mysql-errors/en/ and https://mariadb.com/kb/en/mariadb-error-code-reference/.
"""

from __future__ import annotations

import re

from projection_rebuild.errors.drivers import one_line
from projection_rebuild.errors.trouble import Kind, Trouble

NUMBERS = {
    Kind.LOST: (
        *(1053, 1077, 1079, 1080, 1158, 1159, 1160, 1161, 1184, 1927, 3032, 3168, 3169, 4031),  # from the server
        *(
            2000,
            2001,
            2002,
            2003,
            2004,
            2005,
            2006,
            2007,
            2012,
            2013,
            2014,
            2016,
            2026,
            2048,
            2055,
            2059,
        ),  # from the client library
    ),
    Kind.DENIED: (1044, 1045, 1130, 1142, 1143, 1227, 1370, 1410, 1419, 1698, 1820, 1862, 3118, 4151),
    Kind.READ_ONLY: (1036, 1792, 1836),
    Kind.MISSING: (1049, 1051, 1054, 1091, 1109, 1146, 1176, 1305, 1347, 1356, 1360),
    Kind.FULL: (3, 28, 1021, 1026, 1037, 1038, 1040, 1041, 1114, 1135, 1203, 1206, 1226, 1637),
    Kind.BUSY: (1020, 1205, 1213, 1412, 1614, 1684, 3572),
    Kind.CANCELLED: (1078, 1317, 1969, 3024),
    Kind.VALUE: (
        *(1022, 1062, 1169, 1586),  # a duplicate
        *(1048, 1263, 1264, 1265, 1364, 1406),  # null, too large, too long
        *(1216, 1217, 1451, 1452),  # a missing parent, or an existing child
        *(1153, 1242, 1292, 1300, 1366, 1411, 1416),  # a text that is no date, time, UTF-8, number or geometry
        *(1365, 1441, 1690),  # a division by zero, a result that is too large
        *(3140, 3141, 3143, 3144, 3146, 3156, 3157, 3158, 3903),  # invalid JSON on MySQL
        *(4035, 4036, 4037, 4038, 4039, 4040),  # invalid JSON on MariaDB
        *(1526, 3819, 4025),  # no partition for the row; a CHECK on MySQL and on MariaDB
    ),
    Kind.SQL: (
        *(1050, 1055, 1059, 1060, 1061, 1064, 1068, 1071, 1075, 1101, 1104, 1118, 1149, 1166, 1170, 1175, 1222, 1235, 1290),
        *(1709, 1824, 3750),
    ),
}

_KIND_OF = {number: kind for kind, numbers in NUMBERS.items() for number in numbers}

PLAIN = {Kind.LOST, Kind.DENIED, Kind.READ_ONLY, Kind.MISSING, Kind.FULL, Kind.BUSY, Kind.CANCELLED}
"""Kinds whose texts name objects of the catalog, files, accounts and sessions, and never quote a row."""

_NAMED = r"(`[^`]*`|'[^']*')"
PLAIN_TEXTS = {
    1048: re.compile(rf"Column {_NAMED} cannot be null"),
    1264: re.compile(rf"Out of range value for column {_NAMED} at row \d+"),
    1265: re.compile(rf"Data truncated for column {_NAMED} at row \d+"),
    1364: re.compile(rf"Field {_NAMED} doesn't have a default value"),
    1365: re.compile("Division by 0"),
    1406: re.compile(rf"Data too long for column {_NAMED} at row \d+"),
    1290: re.compile("The (MySQL|MariaDB) server is running with the --?[a-z-]+ option so it cannot execute this statement"),
    1451: re.compile(rf"Cannot delete or update a parent row: a foreign key constraint fails \({_NAMED}[^']*\)"),
    1452: re.compile(rf"Cannot add or update a child row: a foreign key constraint fails \({_NAMED}[^']*\)"),
    3819: re.compile(rf"Check constraint {_NAMED} is violated\."),
    4025: re.compile(rf"CONSTRAINT {_NAMED} failed for {_NAMED}\.{_NAMED}"),
    1050: re.compile(rf"Table {_NAMED} already exists"),
    1061: re.compile(rf"Duplicate key name {_NAMED}"),
    1068: re.compile("Multiple primary key defined"),
    1071: re.compile(r"Specified key was too long; max key length is \d+ bytes"),
    1175: re.compile("You are using safe update mode and you tried to update a table without a WHERE that uses a KEY column.*"),
    1824: re.compile(rf"Failed to open the referenced table {_NAMED}"),
}
"""By number, the server's messages that name columns and constraints alone.

SIGNAL may raise the same number with any other text.
"""

_ENDS_IN = re.compile(r".*?((for key|for column) [`'][^`']+[`'](\.`[^`]+`)*( at row \d+)?)", re.DOTALL)
"""The end of a message about a value, after the value: it names the key or column."""

_BY_OPTION = 1290
"""The number for all actions that an option of the server forbids, such as writing or reading files."""

_FIRST_OF_CLIENT, _LAST_OF_CLIENT = 2000, 2999
_NO_ROOM = re.compile(r'Got error (28|27) ".*" from storage engine|.*\((Errcode|OS errno):? (28|27)\b.*')
_BY_CLASS = {
    "IntegrityError": Kind.VALUE,
    "DataError": Kind.VALUE,
    "NotSupportedError": Kind.SQL,
    "ProgrammingError": Kind.SQL,
    "InterfaceError": Kind.LOST,
}


def number(cause: BaseException) -> int | None:
    """The number of an error of mysqlclient; None: the error has no number."""
    return cause.args[0] if cause.args and isinstance(cause.args[0], int) else None


def of_driver(cause: BaseException) -> Trouble:
    """The trouble of an error of mysqlclient."""
    code, message = number(cause), one_line(str(cause.args[-1])) if cause.args else ""
    if code is None:
        # The driver itself has raised it: the connection is closed, or it cannot send a value.
        kind = Kind.LOST if type(cause).__name__ in ("InterfaceError", "OperationalError") else Kind.VALUE
        return Trouble(kind)
    if _NO_ROOM.fullmatch(message):
        return Trouble(Kind.FULL, f"error {code}", message)
    by_class = _BY_CLASS.get(type(cause).__name__, Kind.UNKNOWN)
    if by_class is Kind.UNKNOWN and _FIRST_OF_CLIENT <= code <= _LAST_OF_CLIENT:
        by_class = Kind.LOST
    kind = Kind.READ_ONLY if code == _BY_OPTION and "read-only" in message else _KIND_OF.get(code, by_class)
    pattern = PLAIN_TEXTS.get(code)
    plain = pattern.fullmatch(message) if pattern else kind in PLAIN and code in _KIND_OF
    return Trouble(kind, f"error {code}", message if plain else _end(str(cause.args[-1])) if kind is Kind.VALUE else "")


def _end(message: str) -> str:
    match = _ENDS_IN.fullmatch(message)
    return match[1] if match else ""
