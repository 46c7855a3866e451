"""The steps of a run, each struck at its 1st, 2nd, 3rd ... statement and simply run again, over as many runs as it takes."""

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
"""Steps that begin again as long as the run's state is what it was, and can be struck several times in one run."""

STRIKES = 5
ALIKE = 8
"""A replay's transactions are all alike: from this statement on, every fourth stands for them."""
MOST = 400
"""No step has more statements than this; beyond it a step is not getting anywhere."""

Attempt = Callable[[str, str, int], bool]
"""Runs a step (run id, name) that is struck at its n-th statement; whether it had so many."""


def sweep(
    shop: LiveShop,
    attempt: Attempt,
    retry: Callable[[str, str], object],
    steps: Sequence[str] = REBUILD,
    struck: Collection[str] | None = None,
) -> dict[str, int]:
    """Strikes the steps of run after run until each has been struck at all of its statements (of a replay: see :data:`ALIKE`).

    After every strike the application must work; the retry must finish the step, and the run leave nothing but right tables.

    :param retry: runs a step (run id, name) to its end
    :param steps: those of a rebuild, or of a rollback, before which there is a rebuild
    :param struck: the ones that are struck; None: all
    :returns: at how many statements each step was struck
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
    """A process that lives on after its faults, and keeps its connections until its next step: what they hold would show."""

    def __init__(self, shop: LiveShop) -> None:
        self.made: Rebuild | None = None
        self._shop = shop

    def open(self, run_id: str) -> Rebuild:
        """The run, as a task opens it."""
        self.close()
        self.made = self._shop.open_run(run_id)
        return self.made

    def close(self) -> None:
        """Ends its connections."""
        if self.made is not None:
            self.made.close()

    def retry(self, run_id: str, name: str) -> None:
        """Runs a step as it is run again after a failure."""
        STEPS[name](self.open(run_id))

    def struck_by(self, fault: Callable[[int], Fault]) -> Attempt:
        """Attempts that are struck.

        :param fault: what strikes at the n-th statement
        """

        def attempt(run_id: str, name: str, at: int) -> bool:
            made, struck = self.open(run_id), fault(at)
            with struck.on(made):
                error = error_of(lambda: STEPS[name](made))
            assert struck.struck or error is None, f"{name} failed by itself: {error!r}"
            return struck.struck is not None

        return attempt


def error_of(step: Callable[[], object]) -> Exception | None:
    """The error that a step ends with, if it is one that a retry can help against; any other one is raised."""
    try:
        step()
    except RebuildError as error:
        if not error.retryable:
            raise
        # What somebody prints of it is ours alone.
        came_from = error.__cause__ or error.__context__
        assert came_from is None or isinstance(came_from, RebuildError), repr(came_from)
        return error
    return None


def assert_within_the_work(strikes: dict[str, int]) -> None:
    """Each step was really struck, and not beside its work."""
    assert min(strikes.values()) >= 4 and strikes["atomic_swap"] >= 10, strikes


_fork = multiprocessing.get_context("fork")


def _die(_driver: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _work(shop: LiveShop, run_id: str, step: str, deadly: int) -> None:
    made = shop.open_run(run_id)
    with Fault(deadly, _die, after=True, only=WRITES).on(made):
        STEPS[step](made)
    # Straight out: what a worker does at its end is not what is tested here.
    os._exit(0)


def killed(shop: LiveShop) -> Attempt:
    """Attempts in processes of their own, which are killed."""

    def attempt(run_id: str, step: str, deadly: int) -> bool:
        doomed = _fork.Process(target=_work, args=(shop, run_id, step, deadly))
        doomed.start()
        doomed.join(120)
        assert doomed.exitcode in (0, -signal.SIGKILL), f"{step} failed by itself"
        return doomed.exitcode != 0

    return attempt
