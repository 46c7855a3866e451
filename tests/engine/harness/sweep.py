"""Strikes each step of a run at its 1st, 2nd, 3rd ... statement and runs it again, over as many runs as that takes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Collection, Sequence
from typing import Any

from projection_rebuild.errors import RebuildError
from projection_rebuild.rebuild import Rebuild
from projection_rebuild.spec.options import RunOptions
from tests.conftest import EVERY_STATEMENT
from tests.engine.harness.clients import LiveShop
from tests.engine.harness.faults import WRITES, Fault
from tests.engine.harness.specs import PROJECTORS

STEPS: dict[str, Callable[[Rebuild], object]] = {
    "plan": lambda made: made.plan(RunOptions()),
    "clone_tables": Rebuild.clone_tables,
    **{name: lambda made, name=name: made.replay(name) for name in PROJECTORS},  # type: ignore[misc]
    "verify_counts": Rebuild.verify,
    "atomic_swap": Rebuild.swap,
    "reconcile": Rebuild.reconcile,
    "drop_old_tables": Rebuild.drop_old,
    "plan_rollback": lambda made: made.plan_rollback(RunOptions()),
    "bring_back": Rebuild.bring_back,
}
REBUILD = ("plan", "clone_tables", *PROJECTORS, "verify_counts", "atomic_swap", "reconcile", "drop_old_tables")
ROLLBACK = ("plan_rollback", "bring_back", "atomic_swap", "reconcile", "drop_old_tables")

STARTS_OVER = {"plan", "clone_tables", "verify_counts", "atomic_swap", "plan_rollback"}
"""Steps that start over while the run's state is unchanged, so that one run can strike them several times."""

STRIKES = 5
ALIKE = 8
"""All transactions of a replay are alike, so from this statement on the sweep strikes only every fourth."""
MOST = 400
"""The most statements of a step; a step with more makes no progress."""

Attempt = Callable[[str, str, int], bool]
"""Runs a step (run id, name) and strikes it at its n-th statement; returns whether it had so many statements."""


def sweep(
    shop: LiveShop,
    attempt: Attempt,
    retry: Callable[[str, str], object],
    steps: Sequence[str] = REBUILD,
    struck: Collection[str] | None = None,
) -> dict[str, int]:
    """Strikes the steps of many runs until each was struck at all of its statements (for a replay, see :data:`ALIKE`).

    After every strike the application must work. The retry must finish the step, and the run must leave only correct
    tables.

    :param retry: runs a step (run id, name) to its end
    :param steps: the steps of a rebuild, or of a rollback, which the sweep does after a rebuild
    :param struck: the steps to strike; None: all
    :returns: the number of statements at which each step was struck
    """
    left = set(struck or steps)
    strikes, at = dict.fromkeys(left, 0), dict.fromkeys(left, 1)
    for number in range(MOST):
        run_id = f"run-{number}"
        if "plan" in left:
            shop.forget_all_runs()
        if steps is ROLLBACK:
            for name in REBUILD[: REBUILD.index("drop_old_tables")]:
                retry(f"before-{number}", name)
        for name in steps:
            began = shop.state(run_id)
            for _ in range(STRIKES if name in STARTS_OVER else 1):
                if name not in left or shop.state(run_id) != began:
                    break
                if attempt(run_id, name, at[name]):
                    strikes[name] += 1
                    at[name] += 4 if name not in STARTS_OVER and at[name] >= ALIKE and not EVERY_STATEMENT else 1
                else:
                    left.discard(name)
                shop.check()
            retry(run_id, name)
        shop.check()
        shop.check_nothing_is_left()
        if not left:
            return strikes
    raise AssertionError(f"{left} never came to its end")


class Worker:
    """A worker that survives its faults.

    It keeps its connections until its next step, so that tests notice locks that are left on them.

    :ivar made: the run that it has opened last
    """

    def __init__(self, shop: LiveShop) -> None:
        self.made: Rebuild | None = None
        self._shop = shop

    def open(self, run_id: str) -> Rebuild:
        """Opens a run as a task does."""
        self.close()
        self.made = self._shop.open_run(run_id)
        return self.made

    def close(self) -> None:
        """Closes its connections."""
        if self.made is not None:
            self.made.close()

    def retry(self, run_id: str, name: str) -> None:
        """Runs a step on new connections, as after a failure."""
        STEPS[name](self.open(run_id))

    def struck_by(self, fault: Callable[[int], Fault]) -> Attempt:
        """An attempt that a fault strikes.

        :param fault: builds the fault at the n-th statement
        """

        def attempt(run_id: str, name: str, at: int) -> bool:
            made, struck = self.open(run_id), fault(at)
            with struck.on(made):
                error = error_of(lambda: STEPS[name](made))
            assert struck.struck or error is None, f"{name} failed by itself: {error!r}"
            return struck.struck is not None

        return attempt


def error_of(step: Callable[[], object]) -> Exception | None:
    """The error of a step, if a retry may repair it; None: the step succeeds.

    :raises Exception: any other error
    """
    try:
        step()
    except RebuildError as error:
        if not error.retryable:
            raise
        # The chain must hold our own errors only, so that no traceback shows a driver's error.
        came_from = error.__cause__ or error.__context__
        assert came_from is None or isinstance(came_from, RebuildError), repr(came_from)
        return error
    return None


def assert_within_the_work(strikes: dict[str, int]) -> None:
    """Asserts that each step was struck, and during its main work."""
    assert min(strikes.values()) >= 4 and strikes["atomic_swap"] >= 10, strikes


_fork = multiprocessing.get_context("fork")


def _die(_driver: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _work(shop: LiveShop, run_id: str, step: str, deadly: int) -> None:
    made = shop.open_run(run_id)
    with Fault(deadly, _die, after=True, only=WRITES).on(made):
        STEPS[step](made)
    # Without a worker's clean-up, which is not under test.
    os._exit(0)


def killed(shop: LiveShop) -> Attempt:
    """An attempt in a process of its own, which the fault kills."""

    def attempt(run_id: str, step: str, deadly: int) -> bool:
        doomed = _fork.Process(target=_work, args=(shop, run_id, step, deadly))
        doomed.start()
        doomed.join(120)
        assert doomed.exitcode in (0, -signal.SIGKILL), f"{step} failed by itself"
        return doomed.exitcode != 0

    return attempt
