"""What MySQL and MariaDB say alike."""

from __future__ import annotations

from tests.engine.conformance.contract.declared import Uncarried

TRIGGER = Uncarried(
    "trigger",
    "CREATE TRIGGER tg_{table} BEFORE INSERT ON {table} FOR EACH ROW SET NEW.word = 'seen'",
    "DROP TRIGGER tg_{table}",
    "the trigger tg_{table}",
)

REFUSED = {
    "a day": "INSERT INTO {table} (id, day) VALUES (1, '2026-02-31')",
    "a time": "INSERT INTO {table} (id, at) VALUES (1, 's3cret')",
    "a cast": "INSERT INTO {table} (id, price) SELECT 1, CAST('s3cret' AS SIGNED)",
    "a number": "INSERT INTO {table} (id, price) VALUES (1, 's3cret')",
    "a day by a function": "INSERT INTO {table} (id, day) VALUES (1, STR_TO_DATE('s3cret', '%%Y'))",
    "a division": "INSERT INTO {table} (id, price) VALUES (1, 1 / 0)",
    "a sum": "INSERT INTO {table} (id, price) VALUES (1, 9223372036854775807 + 1)",
    "a text": "INSERT INTO {table} (id, words) VALUES (1, x'ff')",
    "JSON": "INSERT INTO {table} (id, more) VALUES (1, '{s3cret')",
    "a part of JSON": "INSERT INTO {table} (id, words) VALUES (1, JSON_EXTRACT('{s3cret', '$.a'))",
}
"""Statements that are refused for a value."""

BITS = ("BIT(8)", "good + 0")

FAR_AWAY = {"init_command": "SET time_zone = '+08:00'"}

UNFIT = {"init_command": "SET sql_mode = ''"}

NO_MEMORY = "sorts take what the operator has set for all sessions"
NO_LAG = "a server knows which replicas it has, and not how far they have come"
NO_ROOM = "the server does not tell what its disks have left"
NO_PARTIAL = "an index has all rows"
NO_DEFERRED = "a foreign key is checked at each statement"
NO_AHEAD = "AUTO_INCREMENT gives a session no numbers before its statement"
