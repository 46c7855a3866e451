"""An application under live traffic on PostgreSQL, and the spec of its rebuilds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from include.universal import events
from include.universal.demo import SPEC, run_all
from include.universal.live import traffic
from include.universal.schema import create_schema
from projection_rebuild.spec.load import load_spec
from projection_rebuild.spec.options import RunOptions

EVENTS = 3_000


class Application:
    """The example application at work.

    :param url: an empty database
    :param specs: a folder for its spec
    :ivar pace: seconds between two events
    """

    def __init__(self, url: sa.URL, specs: Path) -> None:
        self.url = url
        self.spec = specs / "universal.yaml"
        self.engine = sa.create_engine(url)
        self.pace = 0.1
        self._stopped = threading.Event()
        self._client = threading.Thread(target=self._work, daemon=True)
        create_schema(self.engine)
        events.append_all(self.engine, events.generate(EVENTS))
        run_all(load_spec(SPEC), self.engine, "fill", RunOptions(keep_old=False), lambda _: None)
        self.execute("UPDATE category_summaries SET total_cents = total_cents * 2 WHERE category = 'travel'")
        # What its operators look at for the lag of its replicas.
        self.execute("CREATE TABLE replica_lag (seconds integer)")
        self.execute("INSERT INTO replica_lag VALUES (0)")

    def execute(self, sql: str) -> None:
        """Something that somebody did by hand."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(sql)

    def write_spec(self, **sections: Any) -> None:
        """The example's spec with other values; within a section only the named keys are others."""
        spec = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
        for name, value in sections.items():
            spec[name] = spec[name] | value if isinstance(value, dict) and name in spec else value
        # Whoever reads it meanwhile reads the one or the other.
        whole = self.spec.with_suffix(".new")
        whole.write_text(yaml.safe_dump(spec), encoding="utf-8")
        whole.replace(self.spec)

    def value(self, sql: str) -> Any:
        """The one value that a query gives."""
        with self.engine.connect() as connection:
            return connection.exec_driver_sql(sql).scalar_one()

    def start(self) -> None:
        """Begins to append and to project, some events a second."""
        self._client.start()

    def stop(self) -> None:
        """Stops; what has been appended has been projected."""
        self._stopped.set()
        self._client.join(timeout=600)

    def close(self) -> None:
        """Stops, and closes the connections."""
        self.stop()
        self.engine.dispose()

    def _work(self) -> None:
        traffic(self.engine, 1_000_000, seed=11, stopped=self._stopped.is_set, around=self._pace)

    @contextmanager
    def _pace(self) -> Iterator[None]:
        yield
        self._stopped.wait(self.pace)
