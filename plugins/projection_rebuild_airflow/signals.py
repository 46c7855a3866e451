"""Reacts to signals at once. While mysqlclient waits for the server in C, Python runs no signal handlers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGALRM})
"""The signals that end a task: it is marked or cleared, its worker shuts down, or its ``execution_timeout`` is over."""


@contextmanager
def heard_at_once(end: Callable[[], None]) -> Iterator[None]:
    """Within it, a signal that ends the task calls ``end`` in a thread of its own.

    The handlers run later, as soon as they can.
    """
    if threading.current_thread() is not threading.main_thread():
        # Python handles signals in the main thread only.
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reading, end), name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        listener.join()
        os.close(reading)


def _listen(reading: int, end: Callable[[], None]) -> None:
    while numbers := os.read(reading, 64):
        if ENDING.intersection(numbers):
            end()
