"""What verification's sample judges, and what it says of what it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from tests.engine import shop
from tests.engine.test_rebuild import events, rebuild, run_to


@pytest.fixture
def stored(engine: sa.Engine) -> list[dict[str, Any]]:
    shop.metadata.create_all(engine)
    made = events(400)
    with engine.begin() as connection:
        connection.execute(shop.stored_events.insert(), made)
    return made


def test_every_row_of_the_shop_is_refolded_and_found_the_same(engine: sa.Engine, stored: list[dict[str, Any]]) -> None:
    made = rebuild(engine)
    run_to(made, "replay")
    found = made.verify()
    print(found.describe())
    rows = {each.table: each.green_rows for each in found.tables}
    sampled = {each.projector: each for each in found.sample}
    assert sampled["OrderProjector"].rows == rows["orders"]
    assert sampled["OrderLineProjector"].rows == rows["order_lines"]
    assert sampled["CustomerTotalProjector"].rows == rows["customer_totals"]
