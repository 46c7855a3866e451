"""The plots: how fast each way is, and whether the cost of a replay stays linear."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pygal
from pygal.style import Style

from benchmarks.results import Results, rate, seconds
from benchmarks.ways import Way

LOOKS: dict[str, Any] = {
    "style": Style(
        background="white",
        plot_background="white",
        font_family="sans-serif",
        colors=("#33691e", "#1565c0", "#e65100", "#6a1b9a"),
        label_font_size=13,
        major_label_font_size=13,
        title_font_size=17,
        legend_font_size=13,
        value_font_size=11,
        guide_stroke_color="#dddddd",
        major_guide_stroke_color="#dddddd",
    ),
    "js": (),
}


def speeds(results: Results, ways: Sequence[Way], titles: dict[str, str], size: int, path: Path) -> None:
    """Events per second of every way, one colour a database.

    :param titles: of the databases
    """
    measured = [way for way in ways if any(run.way == way.name for run in results)]
    chart = pygal.HorizontalBar(
        title=f"Events per second (logarithmic), {size:,} events in the store",
        logarithmic=True,
        range=(10, 1_000_000),
        zero=10,
        margin_right=40,
        y_labels=[10**power for power in range(1, 7)],
        print_values=True,
        width=1000,
        height=140 + 58 * len(measured),
        legend_at_bottom=True,
        truncate_label=-1,
        formatter=lambda value: f"{value:,.0f}" if value else "",
        **LOOKS,
    )
    # It draws from the bottom up.
    chart.x_labels = [way.title for way in reversed(measured)]
    named = {way.name for way in measured}
    for engine in dict.fromkeys(run.engine for run in results if run.way in named):
        runs = [results.of(engine, way.name, size) for way in reversed(measured)]
        chart.add(titles[engine], [rate(each) if each else None for each in runs])
    path.write_bytes(chart.render())


def growth(results: Results, ways: Sequence[Way], path: Path) -> None:
    """Seconds against events in the store, for the ways that were measured at several sizes."""
    chart = pygal.XY(
        title="Seconds for all events in the store, PostgreSQL",
        x_title="events in the store, millions",
        width=1000,
        height=420,
        legend_at_bottom=True,
        truncate_legend=-1,
        include_x_axis=True,
        value_formatter=lambda value: f"{value:,.1f}",
        **LOOKS,
    )
    for way in ways:
        sizes = sorted(
            {run.size for run in results if run.way == way.name and run.engine == "postgres" and way.scope == "answer"}
        )
        if len(sizes) > 1:
            points = [(size / 1e6, seconds(results.of("postgres", way.name, size))) for size in sizes]
            chart.add(way.title, [(0, 0), *points])
    path.write_bytes(chart.render())
