"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

DRIVERS = ("SQLAlchemy", "psycopg", "mysqlclient", "orjson")


def describe() -> str:
    """Processor, cores, memory, Python and drivers, in a line."""
    # getconf's words: pages and bytes.
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    drivers = ", ".join(f"{name} {version(name)}" for name in DRIVERS)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_processor()}, {cores} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}; "
        f"Python {platform.python_version()}, {drivers}"
    )


def load() -> str:
    """How busy the machine has been in the last minute, for whoever doubts a figure."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
