"""The read models' tables: blue, green and old ones, and the runs that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

from projection_rebuild.api import TableSeen
from projection_rebuild_airflow import links
from projection_rebuild_airflow.ids import dag_run_of
from projection_rebuild_airflow.page.seen import Seen
from projection_rebuild_airflow.page.views.reports import short_name
from projection_rebuild_airflow.page.words import away, count, moment, size


@dataclass(frozen=True)
class TableView:
    """A table under one of its names.

    :param table: the name of the live table
    :param name: the name of this table
    :param role: blue, green or old
    :param share: its size relative to the largest table, from 0 to 1
    :param note: the run that it belongs to, and when it is dropped
    :param href: the link to that run
    """

    table: str
    name: str
    role: str
    rows: str
    size: str
    share: float
    note: str
    href: str


def table_views(seen: Seen) -> list[TableView]:
    """The views of all tables of the spec's read models."""
    largest = max((table.size for table in seen.tables), default=0)
    return [_table_view(seen, table, largest) for table in seen.tables]


def _table_view(seen: Seen, table: TableSeen, largest: int) -> TableView:
    dag_run = dag_run_of(table.run_id or "")
    return TableView(
        table=table.table,
        name=table.name,
        role=table.role,
        rows=count(table.rows),
        size=size(table.size),
        share=round(table.size / largest, 4) if largest else 0.0,
        note=_note(seen, table),
        href=links.run(*dag_run) if dag_run else "",
    )


def _note(seen: Seen, table: TableSeen) -> str:
    if table.role == "green":
        return f"made by {short_name(table.run_id)}" if table.run_id else "not ours; a rebuild is refused while it is there"
    return _when_dropped(seen, table) if table.role == "old" else ""


def _when_dropped(seen: Seen, table: TableSeen) -> str:
    if table.drop_after is None:
        return "not ours; the next switch needs its name"
    retired_by = f"retired by {short_name(table.run_id)}"
    if table.drop_after <= seen.at:
        return f"due to be dropped; {retired_by}"
    return f"dropped {moment(table.drop_after, seen.spec.zone)}, {away(table.drop_after, seen.at)}; {retired_by}"
