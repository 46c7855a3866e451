"""The notifiers of a rebuild: ``notify``."""

from __future__ import annotations

from typing import Any

from projection_rebuild.spec.fields import Section


class NotifierSection(Section):
    """One notifier of Airflow.

    :param notifier: the import path of its class, such as ``airflow.providers.smtp.notifications.smtp.SmtpNotifier``
    :param arguments: its arguments; templates work where the notifier supports them
    """

    notifier: str
    arguments: dict[str, Any] = {}


Notifiers = tuple[NotifierSection, ...]


class NotifySection(Section):
    """Which notifiers to call for which event of a run.

    :param failure: a task has failed for good; also a failed verification, if ``verification_failed`` is empty
    :param verification_failed: green must not replace blue
    :param waiting_too_long: the low-traffic gate waits for longer than ``low_traffic.warn_after``
    :param approval_wanted: the run waits for the approval of an operator
    :param swapped: the run has swapped
    :param rolled_back: a rollback has swapped
    :param deadline_missed: the run has not swapped by its ``deadline``
    """

    failure: Notifiers = ()
    verification_failed: Notifiers = ()
    waiting_too_long: Notifiers = ()
    approval_wanted: Notifiers = ()
    swapped: Notifiers = ()
    rolled_back: Notifiers = ()
    deadline_missed: Notifiers = ()
