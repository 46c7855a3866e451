"""The short form of ``make prove``: clients append, project and read through rebuilds, one of them killed."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tools.prove import prove

pytestmark = pytest.mark.slow

KNOWN_ON_MYSQL = "1213"
"""MySQL's deadlock detector kills a client that holds one of the tables in a transaction and wants another, never the
RENAME; everything else fails the proof."""


def test_nothing_is_lost_doubled_or_failed(database_kind: str, database_url: sa.URL) -> None:
    proof = prove(database_kind, database_url.render_as_string(hide_password=False), rebuilds=3, kills=1)
    assert proof.lost_or_doubled == 0, proof.describe()
    assert proof.rebuilds == 3 and proof.appended > 50
    if database_kind == "mysql":
        assert all(KNOWN_ON_MYSQL in each for each in proof.errors), proof.describe()
    else:
        assert proof.holds, proof.describe()
