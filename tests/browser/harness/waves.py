"""The shop, with a spec of two stages: a program at any time, and then a projector within a window."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import yaml

from tests.engine.harness import shop
from tests.engine.harness.programs import program
from tests.engine.harness.shop import events

ZONE = ZoneInfo("Europe/Amsterdam")
EVENTS = 400


class Waves:
    """The shop and its spec.

    :param url: an empty database on PostgreSQL
    :param specs: the folder for its spec
    :param waits: names a file that holds the position at which the program stands still
    """

    def __init__(self, url: sa.URL, specs: Path, waits: Path) -> None:
        self.engine = sa.create_engine(url)
        self.waits = waits
        self._spec = specs / "waves.yaml"
        names = ("stored_events", "orders", "customer_totals")
        shop.metadata.create_all(self.engine, tables=[shop.metadata.tables[name] for name in names])
        with self.engine.begin() as connection:
            connection.execute(shop.stored_events.insert(), events(EVENTS))
        self.write_spec(timedelta(hours=8))

    def write_spec(self, opens_in: timedelta) -> datetime:
        """Writes the spec anew.

        :param opens_in: how long from now the second stage's window opens, at the least
        :returns: when it opens
        """
        opens = (datetime.now(ZONE) + opens_in).replace(second=0, microsecond=0) + timedelta(minutes=1)
        window = f"{opens:%H:%M}-{opens + timedelta(hours=2):%H:%M}"
        spec = {
            "rebuild": "waves",
            "event_store": {"conn_id": "waves_db"},
            "read_models": {"conn_id": "waves_db"},
            "projectors": [
                program(self.engine, self.waits, "totals", environment={"TEST": str(os.getpid())}),
                "tests.engine.harness.shop:OrderProjector",
            ],
            "live_writer": "transactional",
            "timezone": str(ZONE),
            "stages": [
                {"name": "programs", "projectors": ["TotalsInShell"]},
                {"name": "nights", "projectors": ["OrderProjector"], "window": window},
            ],
        }
        whole = self._spec.with_suffix(".new")
        whole.write_text(yaml.safe_dump(spec), encoding="utf-8")
        whole.replace(self._spec)
        return opens
