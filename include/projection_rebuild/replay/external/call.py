"""One call of a program: what it is given, what it reports, and whether it has done what it was asked for."""

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
SECRET = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
"""What a program does not get of our environment."""


class Call:
    """One call at work.

    :param events: how many events it has to handle
    """

    def __init__(
        self, context: Context, projector: type[ExternalProjector], after: Place, upto: int, head: Place, events: int
    ) -> None:
        self.upto, self.head, self.events = upto, head, events
        self.counted, self.since = 0, time.monotonic()
        self._context = context
        self._projector = projector
        self._said: int | None = None
        self._at: Place = after
        values = _values(context, projector, after, upto)
        self.process = Process(
            [_filled(word, values) for word in projector.command],
            patience=external.PATIENCE,
            directory=projector.directory,
            environment=_environment(context, projector, values),
        )

    def positions(self, seconds: float) -> Iterator[int]:
        """The last position that the program has reported within this time, if it has reported any."""
        deadline, reached = time.monotonic() + seconds, None
        while (left := deadline - time.monotonic()) > 0 and not self.process.has_ended():
            line = self.process.line(min(left, 0.05))
            if line is not None and (found := self._understood(line)) is not None:
                reached = found
        if reached is not None:
            yield reached

    def _understood(self, line: str) -> int | None:
        """``position N``: all events up to N are in the tables for good. ``events N``: so many has this call handled in all."""
        word, _, number = line.strip().partition(" ")
        if word not in ("position", "events") or not number.removeprefix("-").isdecimal():
            if self._projector.show_output:
                self._context.log(f"{self._projector.name()} says: {line}")
            return None
        if word == "events":
            self._said = int(number)
            return None
        if is_before(int(number), self._at) or int(number) > self.upto:
            raise failed(self._projector, self.upto, f"it reports position {number}, which is not within what it was asked for")
        self._at = int(number)
        return int(number)

    def check(self) -> None:
        """Whether the program, which has ended, has done what it was asked for."""
        code = self.process.end()
        if code:
            what = "its command cannot be started" if code == 127 else f"it ended with exit code {code}"
            raise failed(self._projector, self.upto, what)
        if self._said is not None and self._said != self.events:
            raise failed(self._projector, self.upto, f"it has handled {self._said:,} events, and the store holds {self.events:,}")


def failed(projector: type[ExternalProjector], upto: int, what: str) -> ProgramFailed:
    """What a call that was not done is refused with."""
    return ProgramFailed(
        f"{projector.name()}, called up to position {upto:,}: {what}. Blue is live and untouched. Look into the program's own log "
        "(or set show_output), and retry"
    )


def _values(context: Context, projector: type[ExternalProjector], after: Place, upto: int) -> dict[str, str]:
    # Nothing lies below the first event, so a program that knows no beginning may take the number before it for one.
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
    ours = {name: value for name, value in os.environ.items() if not name.startswith(SECRET)}
    given = {VARIABLE + name.upper(): value for name, value in values.items()}
    given[VARIABLE + "TABLES"] = orjson.dumps({table: context.table_set(table).green for table in projector.tables()}).decode()
    given[VARIABLE + "EVENT_TYPES"] = orjson.dumps(projector.stored_types()).decode()
    if projector.connections:
        for name, engine in (("READ_MODELS_URL", context.dialect.engine), ("EVENT_STORE_URL", context.store.dialect.engine)):
            given[VARIABLE + name] = url_as_text(engine.url)
    return ours | dict(projector.environment) | given


def url_as_text(url: sa.URL) -> str:
    """A URL as other languages' drivers read it: every special character as ``%XX``, blanks too, and the query with all of its settings."""
    word = partial(quote, safe="")
    login = word(url.username or "") + (f":{word(str(url.password))}" if url.password is not None else "")
    host = f"[{url.host}]" if ":" in (url.host or "") else (url.host or "")
    text = f"{url.get_backend_name()}://{login}{'@' if login else ''}{host}{f':{url.port}' if url.port else ''}"
    query = urlencode(url.query, doseq=True, quote_via=quote, safe="")
    return text + (f"/{quote(url.database, safe='/')}" if url.database else "") + (f"?{query}" if query else "")
