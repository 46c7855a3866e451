"""Who is told: ``notify``."""

from __future__ import annotations

from typing import Any

from projection_rebuild.spec.fields import Section


class NotifierSection(Section):
    """One notifier of Airflow.

    :param notifier: the import path of its class, such as ``airflow.providers.smtp.notifications.smtp.SmtpNotifier``
    :param arguments: what it is made with; templates where the notifier has them
    """

    notifier: str
    arguments: dict[str, Any] = {}


Notifiers = tuple[NotifierSection, ...]


class NotifySection(Section):
    """Who is told, of what.

    :param failure: a task has failed for good; also of a failed verification, where that has no notifiers of its own
    :param verification_failed: green must not replace blue
    :param waiting_too_long: the gate waits for longer than ``low_traffic.warn_after``
    :param approval_wanted: a person has to decide
    :param swapped: the swap is done
    :param rolled_back: the swap of a rollback is done
    :param deadline_missed: the run has not swapped by its ``deadline``
    """

    failure: Notifiers = ()
    verification_failed: Notifiers = ()
    waiting_too_long: Notifiers = ()
    approval_wanted: Notifiers = ()
    swapped: Notifiers = ()
    rolled_back: Notifiers = ()
    deadline_missed: Notifiers = ()
