"""Geometry of small bar charts for inline SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BAR, GAP, HEIGHT = 12, 4, 40
"""Width of a bar, width between two bars, and height of the chart, in pixels."""


@dataclass(frozen=True)
class Bar:
    """One bar, in pixels.

    :param title: the text that the browser shows under the mouse
    :param kind: its class in the style sheet
    """

    x: int
    y: float
    height: float
    title: str
    kind: str


@dataclass(frozen=True)
class Chart:
    """Bars from the oldest to the newest, on a common scale.

    :param label: the measure that the chart shows
    :param latest: the newest value, in words
    """

    label: str
    latest: str
    width: int
    height: int
    bars: list[Bar]


@dataclass(frozen=True)
class Value:
    """One value of a chart; None leaves its place empty.

    :param text: the value in words, and its run
    :param kind: the class of its bar in the style sheet
    """

    value: float | None
    text: str
    kind: str = ""


def chart(label: str, values: Sequence[Value], latest: str) -> Chart:
    """A bar for each value. The tallest is as high as the chart, and each is at least 2 pixels high."""
    largest = max((value.value for value in values if value.value is not None), default=0.0)
    bars = []
    for place, value in enumerate(values):
        if value.value is None:
            continue
        height = max(2.0, round(HEIGHT * value.value / largest, 1)) if largest else 2.0
        bars.append(Bar(place * (BAR + GAP), round(HEIGHT - height, 1), height, value.text, value.kind))
    return Chart(label, latest, max(1, len(values)) * (BAR + GAP) - GAP, HEIGHT, bars)
