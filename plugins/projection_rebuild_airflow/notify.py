"""Tells people what became of a rebuild, by the Airflow notifiers that its spec names. A notifier that fails stops nothing."""

from __future__ import annotations

import asyncio
import inspect
import logging
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.sdk import BaseNotifier, Context
from airflow.sdk.exceptions import AirflowException

from projection_rebuild.api import (
    NotifierSection,
    NotifySection,
    RebuildError,
    RebuildSpec,
    RunState,
    SpecError,
    VerificationFailed,
    failure_of,
    load_spec,
    word_for,
)
from projection_rebuild_airflow.ids import ledger_id
from projection_rebuild_airflow.runs import ledger_run, open_spec

_log = logging.getLogger(__name__)

Told = Callable[[Context, str], None]
"""Tells somebody: the context of a task, and what there is to say."""


def made(section: NotifierSection) -> BaseNotifier:
    """A notifier as a spec describes it. Made anew for each message: it renders its templates in place.

    :raises SpecError: it cannot be imported or made; says how its key goes on
    """
    try:
        kind = pkgutil.resolve_name(section.notifier)
        misfit = _misfit(kind, section.arguments)
        notifier = None if misfit else kind(**section.arguments)
    except Exception as error:
        # Without its text and without the chain: both may quote its arguments.
        raise SpecError(f"{section.notifier} cannot be made: {failure_of(error)}. Correct `notifier` or `arguments`") from None
    if misfit:
        raise SpecError(f"{section.notifier} cannot be made: {misfit}. Correct `arguments`")
    if not isinstance(notifier, BaseNotifier):
        raise SpecError(f"{section.notifier} is no notifier of Airflow (airflow.sdk.BaseNotifier)")
    return notifier


def _misfit(kind: Callable[..., object], arguments: dict[str, Any]) -> str:
    """Why the names of the arguments do not fit; empty: they do. Names only, as values may be secrets."""
    signature = inspect.signature(kind)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        return str(error)
    return ""


def check(spec: RebuildSpec, path: Path) -> None:
    """Makes each notifier once, so that a mistake shows before the night on which it is needed.

    :raises SpecError: names file and key
    """
    for event in NotifySection.model_fields:
        for section in getattr(spec.notify, event):
            try:
                made(section)
            except SpecError as error:
                raise SpecError(f"{path.name}, notify.{event}: {error.message}") from None


class Tell:
    """Tells those whom a spec names for an event.

    A notifier's templates find, beside what Airflow gives them, ``rebuild``: ``event``, ``name``, ``run_id``, ``message``, ``subject``
    and ``report`` (Markdown; empty where the ledger cannot be asked).

    :param spec: what the DAG was made from
    :param event: a key of ``notify``
    """

    def __init__(self, spec: RebuildSpec, event: str) -> None:
        self._spec = spec
        self._event = event
        self._sections: tuple[NotifierSection, ...] = getattr(spec.notify, event)

    def __call__(self, context: Context, message: str) -> None:
        """Tells it; does nothing where nobody is named."""
        self.about(ledger_run(context), dict(context), message)

    def about(self, run: str, context: dict[str, Any], message: str) -> None:
        """Tells something of a run by its name in the ledger.

        :param context: what the notifiers' templates find
        """
        if not self._sections:
            return
        rebuild = {
            "event": self._event,
            "name": self._spec.rebuild,
            "run_id": run,
            "message": message,
            "subject": f"Rebuild {self._spec.rebuild}: {self._event.replace('_', ' ')}",
            "report": _report(self._spec, run),
        }
        for section in self._sections:
            try:
                made(section)({**context, "rebuild": rebuild})
            except Exception as error:
                # Its arguments may hold what must not be logged.
                _log.error("the notifier %s for %s has failed: %s", section.notifier, self._event, type(error).__name__)


def _report(spec: RebuildSpec, run: str) -> str:
    try:
        with open_spec(spec, run) as rebuild:
            return rebuild.report().as_markdown()
    except Exception as error:
        _log.warning("no report for those who are told: %s", type(error).__name__)
        return ""


class OnFailure:
    """Airflow's callback for a task that has failed for good."""

    def __init__(self, spec: RebuildSpec) -> None:
        self._failure = Tell(spec, "failure")
        self._verification = Tell(spec, "verification_failed") if spec.notify.verification_failed else self._failure

    def __call__(self, context: Context) -> None:
        """Tells what has failed, and why."""
        error = context.get("exception")
        cause = error.__cause__ if isinstance(error, BaseException) else None
        tell = self._verification if isinstance(cause, VerificationFailed) else self._failure
        tell(context, f"{context['ti'].task_id} has failed: {_said(error)}")


def _said(error: BaseException | str | None) -> str:
    """What may be told of an error: the text of one that is ours or Airflow's; of any other one its kind, as its text may quote a row."""
    if error is None:
        return "it was stopped from outside"
    return str(error) if isinstance(error, RebuildError | AirflowException | str) else word_for(error)


class OnSwitch:
    """Airflow's callback for a switch that is done.

    :param event: ``swapped`` or ``rolled_back``
    """

    def __init__(self, spec: RebuildSpec, event: str) -> None:
        self._tell = Tell(spec, event)

    def __call__(self, context: Context) -> None:
        """Tells that it is done."""
        self._tell(context, "the tables are switched; the old ones stay until their time")


async def deadline_missed(spec_path: str, context: dict[str, Any]) -> str:
    """Airflow's callback, in the triggerer, for a run that is not over by its deadline; one that has switched is in time.

    :param context: what Airflow gives a deadline's callback: ``dag_run`` and ``deadline``
    :returns: what was done
    """
    return await asyncio.to_thread(_deadline_missed, load_spec(Path(spec_path)), context["dag_run"])


def _deadline_missed(spec: RebuildSpec, dag_run: dict[str, Any]) -> str:
    run = ledger_id(dag_run["dag_id"], dag_run["dag_run_id"])
    state = _state(spec, run)
    if state is not None and state.has_switched:
        return f"{run} has switched in time; it only waits for the retention of its old tables"
    message = f"the run is {state or 'not planned yet'} and has not switched within {spec.deadline} (deadline)"
    Tell(spec, "deadline_missed").about(run, {"dag_run": dag_run, "run_id": dag_run["dag_run_id"]}, message)
    return f"{run}: {message}"


def _state(spec: RebuildSpec, run: str) -> RunState | None:
    """How far a run has come; None: it is not planned, or the ledger cannot be asked, which is no reason to keep silent."""
    try:
        with open_spec(spec, run) as rebuild:
            return RunState(rebuild.report().state)
    except Exception as error:
        _log.warning("the ledger does not say how far %s is: %s", run, type(error).__name__)
        return None
