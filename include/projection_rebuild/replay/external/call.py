"""One call of a program: its command and environment, the positions that it reports, and the check of its result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from urllib.parse import quote, urlencode

import orjson
import sqlalchemy as sa

from projection_rebuild.authoring import external
from projection_rebuild.authoring.external import ExternalProjector
from projection_rebuild.errors import ProgramFailed
from projection_rebuild.model.names import GREEN_SUFFIX
from projection_rebuild.model.positions import Place, is_before
from projection_rebuild.replay.external.process import Process
from projection_rebuild.run.context import Context

VARIABLE = "PROJECTION_REBUILD_"
"""The prefix of the environment variables that the engine sets for a program."""

SECRET = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
"""The prefixes of the worker's environment variables that the engine does not pass on to a program."""


class Call:
    """One running call.

    :param after: the place above which its range begins
    :param upto: the last position of its range
    :param head: the place to which the replay goes
    :param events: the number of events in its range
    :raises OSError: the program cannot be started
    """

    def __init__(
        self, context: Context, projector: type[ExternalProjector], after: Place, upto: int, head: Place, events: int
    ) -> None:
        self.upto, self.head, self.events = upto, head, events
        self.counted, self.since = 0, time.monotonic()
        self._context = context
        self._projector = projector
        # What the program has reported: a number of events, and its last position.
        self._reported_events: int | None = None
        self._position: Place = after
        values = _values(context, projector, after, upto)
        self.process = Process(
            [_filled(word, values) for word in projector.command],
            patience=external.PATIENCE,
            directory=projector.directory,
            environment=_environment(context, projector, values),
        )

    def positions(self, seconds: float) -> Iterator[int]:
        """The last position that the program reports within this time, if it reports any.

        :raises ProgramFailed: it reports a position outside its range
        """
        deadline, reached = time.monotonic() + seconds, None
        while (remaining := deadline - time.monotonic()) > 0 and not self.process.has_ended():
            line = self.process.line(min(remaining, 0.05))
            if line is not None and (position := self._understood(line)) is not None:
                reached = position
        if reached is not None:
            yield reached

    def _understood(self, line: str) -> int | None:
        """Parses a line of output; returns the position that it reports, if any.

        ``position N`` reports that all events up to N are committed in the tables; ``events N`` reports that this call
        has handled N events in total.
        """
        word, _, number = line.strip().partition(" ")
        if word not in ("position", "events") or not number.removeprefix("-").isdecimal():
            if self._projector.show_output:
                self._context.log(f"{self._projector.name()} says: {line}")
            return None
        if word == "events":
            self._reported_events = int(number)
            return None
        if is_before(int(number), self._position) or int(number) > self.upto:
            raise failed(self._projector, self.upto, f"it reports position {number}, which is outside its range")
        self._position = int(number)
        return int(number)

    def check(self) -> None:
        """Checks that the program, which has ended, has handled its range.

        :raises ProgramFailed: its exit code is not 0, or it has reported another number of events
        """
        code = self.process.end()
        if code:
            what = "its command cannot be started" if code == 127 else f"it ended with exit code {code}"
            raise failed(self._projector, self.upto, what)
        if self._reported_events is not None and self._reported_events != self.events:
            what = f"it has handled {self._reported_events:,} events, and the store holds {self.events:,}"
            raise failed(self._projector, self.upto, what)


def failed(projector: type[ExternalProjector], upto: int, what: str) -> ProgramFailed:
    """The error of a failed call.

    :param what: what has gone wrong, as a clause
    """
    return ProgramFailed(
        f"{projector.name()}, called up to position {upto:,}: {what}. Blue is live and untouched. Look into the program's own log "
        "(or set show_output), and retry"
    )


def _values(context: Context, projector: type[ExternalProjector], after: Place, upto: int) -> dict[str, str]:
    """The values that the engine fills into the command and sets in the environment, by name."""
    # For a program that knows no beginning: the store holds nothing up to the number before its first position.
    first = context.store.first() if after is None else after + 1
    begin = upto if first is None else first
    return {
        "from": str(begin),
        "after": str(begin - 1),
        "to": str(upto),
        "suffix": GREEN_SUFFIX,
        "schema": context.schema or "",
        "run": context.run_id,
        "projector": projector.name(),
    }


def _filled(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace("{" + name + "}", value)
    return word


def _environment(context: Context, projector: type[ExternalProjector], values: dict[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SECRET)}
    ours = {VARIABLE + name.upper(): value for name, value in values.items()}
    ours[VARIABLE + "TABLES"] = orjson.dumps({table: context.table_set(table).green for table in projector.tables()}).decode()
    ours[VARIABLE + "EVENT_TYPES"] = orjson.dumps(projector.stored_types()).decode()
    if projector.connections:
        for name, engine in (("READ_MODELS_URL", context.dialect.engine), ("EVENT_STORE_URL", context.store.dialect.engine)):
            ours[VARIABLE + name] = url_as_text(engine.url)
    return inherited | dict(projector.environment) | ours


def url_as_text(url: sa.URL) -> str:
    """A URL that drivers of other languages can parse, with its password and all settings of its query.

    Every special character, including a space, is written as ``%XX``.
    """
    word = partial(quote, safe="")
    login = word(url.username or "") + (f":{word(str(url.password))}" if url.password is not None else "")
    host = f"[{url.host}]" if ":" in (url.host or "") else (url.host or "")
    text = f"{url.get_backend_name()}://{login}{'@' if login else ''}{host}{f':{url.port}' if url.port else ''}"
    query = urlencode(url.query, doseq=True, quote_via=quote, safe="")
    return text + (f"/{quote(url.database, safe='/')}" if url.database else "") + (f"?{query}" if query else "")
