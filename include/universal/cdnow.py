"""Real purchases as events: the CDNOW sample, public data by Peter Fader and Bruce Hardie.

Each line of the file has the customer's number in the full list, the number in the sample, the date, the number of CDs
and the dollars. A customer becomes an aggregate, each purchase an expense.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from include.universal.events import NewEvent

DATA = Path(__file__).parent / "data" / "cdnow_sample.txt"
CATEGORY = "music"


def purchases(path: Path = DATA) -> Iterator[NewEvent]:
    """Yields the file's purchases as ``ExpenseRecorded`` events, in the order of their dates."""
    lines = [line.split() for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    versions: Counter[str] = Counter()
    for _, customer, day, cds, dollars in sorted(lines, key=lambda fields: fields[2]):
        versions[customer] += 1
        spent_on = datetime.strptime(day, "%Y%m%d").date()  # noqa: DTZ007 - a date without a time of day
        yield NewEvent(
            stream=str(uuid5(NAMESPACE_URL, f"cdnow:{customer}")),
            version=versions[customer],
            type="ExpenseRecorded",
            payload={
                "expense_id": str(uuid5(NAMESPACE_URL, f"cdnow:{customer}:{versions[customer]}")),
                "user_id": int(customer),
                "category": CATEGORY,
                "amount_cents": int(Decimal(dollars) * 100),
                "quantity": int(cds),
                "note": None,
                "spent_on": f"{spent_on}",
            },
            recorded_at=f"{spent_on} 12:00:00",
        )
