"""An operator's day in Airflow's own UI, in Chromium, while the application goes on: choose, watch, pause, approve, wait, switch,
take back; and a verification that fails and is tried again.

Every step waits for what is to be seen, never for a time. REBUILD_TEST_SCREENSHOTS names a folder for pictures of the way.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Locator, Page, TimeoutError, ViewportSize, expect, sync_playwright

from projection_rebuild_airflow import links
from tests.browser.conftest import BASE
from tests.browser.harness.application import Application
from tests.browser.harness.running import PASSWORDS, RunningAirflow
from tests.browser.harness.waves import ZONE
from tests.engine.harness.faults import until

PATIENCE = 240_000
"""Milliseconds; a busy machine is no reason to fail."""

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE: ViewportSize = {"width": 1400, "height": 1000}
SHOTS = os.environ.get("REBUILD_TEST_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = shutil.which("chromium")
    assert program, "these tests need Debian's package chromium (packages-test.txt)"
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield made
        made.close()


class User:
    """Somebody at the UI.

    :param theme: what their system prefers; Airflow and our page follow it
    """

    def __init__(self, browser: Browser, airflow: RunningAirflow, name: str, theme: str = "light") -> None:
        self.url = airflow.url
        context = browser.new_context(viewport=WIDE, color_scheme=theme)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        self.page: Page = context.new_page()
        self.elsewhere: list[str] = []
        self.page.on("request", lambda request: self._note(request.url))
        self.page.goto(f"{self.url}/auth/login")
        self.page.get_by_label("Username").fill(name)
        self.page.get_by_label("Password").fill(PASSWORDS[name])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "login" not in url)

    def _note(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.elsewhere.append(url)

    @property
    def frame(self) -> FrameLocator:
        """Our page within Airflow's."""
        return self.page.frame_locator("iframe")

    @property
    def rebuild(self) -> Locator:
        """What our page says of the example's rebuild; there is another one on it."""
        return self.frame.get_by_role("article", name="Rebuild universal")

    @property
    def run(self) -> Locator:
        """The run that goes on, on our page."""
        return self.rebuild.locator("section.run")

    def open(self, path: str) -> None:
        """Goes to a page of Airflow."""
        self.page.goto(f"{self.url}/{path}")

    def watch(self) -> None:
        """Opens our page by Airflow's navigation."""
        self.open("")
        self.page.get_by_role("link", name="Projection rebuilds").click()
        expect(self.frame.get_by_role("heading", name="Projection rebuilds")).to_be_visible()

    def press(self, button: str) -> None:
        """Presses a button of the run, and says yes."""
        self.run.get_by_role("button", name=button).click()
        self.frame.get_by_role("button", name="Do it").click()

    def form(self, dag_id: str) -> Locator:
        """Opens a DAG's trigger form."""
        self.open(links.dag(dag_id))
        self.page.get_by_role("button", name="Trigger").first.click()
        return self.page.get_by_role("dialog")

    @contextmanager
    def narrow(self) -> Iterator[None]:
        """Within it the window is as wide as a phone."""
        self.page.set_viewport_size({"width": 480, "height": 1000})
        yield
        self.page.set_viewport_size(WIDE)

    def shoot(self, name: str) -> None:
        """Takes a picture, if somebody wants them."""
        if SHOTS:
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png")

    def shoot_graph(self, run: str) -> None:
        """Takes a picture of a run in Airflow's graph, if somebody wants them."""
        if not SHOTS:
            return
        self.page.set_viewport_size({"width": 1900, "height": 600})
        self.open(run)
        self.page.get_by_role("button", name="Show Graph").click()
        self.page.get_by_role("button", name="Expand all task groups").click()
        self.page.get_by_role("button", name="Collapse Details Panel").click()
        expect(self.page.get_by_text("ReplayShardOperator")).to_be_visible()
        self.page.get_by_role("button", name="Fit View").click()
        # The graph moves there.
        self.page.wait_for_timeout(2_000)
        self.shoot("dag")
        self.page.set_viewport_size(WIDE)


def choose(form: Locator, *unwanted: str, why: str) -> None:
    """Takes projectors out of the selection, and says why; whoever fills a form in sees its labels."""
    form.get_by_role("button", name="What is rebuilt").click()
    for label in unwanted:
        form.get_by_label(f"Remove {label}").click()
    say_why(form, why)


def say_why(form: Locator, why: str) -> None:
    """Fills in the reason; Airflow gives such a field no name that could be seen."""
    form.locator("[name=element_reason]").fill(why)


def tick(form: Locator, section: str, label: str) -> None:
    """Sets a switch of the form."""
    form.get_by_role("button", name=section).click()
    # What is to be seen of it is drawn beside it.
    form.get_by_role("checkbox", name=label).dispatch_event("click")
    expect(form.get_by_role("checkbox", name=label)).to_be_checked()


def approve(user: User, airflow: RunningAirflow) -> None:
    """Approves on the page that asks; and again where Airflow asks again, as it does if the process that asked had not ended."""
    run = re.sub(r".*/dags/([^/]+)/runs/([^/]+)/.*", r"dags/\1/dagRuns/\2", user.page.url)

    def is_approved() -> bool:
        state = airflow.ask("operator", "GET", f"{run}/taskInstances/approve_swap")["state"]
        if state == "awaiting_input":
            # What has been answered can be answered no more.
            with suppress(TimeoutError):
                user.page.get_by_role("button", name="Approve").click(timeout=10_000)
            user.page.reload()
        return bool(state == "success")

    until(is_approved, seconds=PATIENCE / 1000)


def open_window(hours_from: float, hours_to: float) -> dict[str, str]:
    """A low-traffic window around, or away from, now."""
    now = datetime.now(ZONE)
    start, end = (now + timedelta(hours=hours) for hours in (hours_from, hours_to))
    return {"window": f"{start:%H:%M}-{end:%H:%M}", "look_every": "1s"}


def test_an_operators_day(browser: Browser, running_airflow: RunningAirflow, application: Application) -> None:
    """Two projectors, chosen in the form; the page moves; the switch waits; it is taken back."""
    application.execute("INSERT INTO category_summaries (user_id, category, expenses, total_cents) VALUES (0, 'odd', 1, 1)")
    application.execute("UPDATE replica_lag SET seconds = 100")
    application.write_spec(**BASE, low_traffic=open_window(8, 9))
    operator = User(browser, running_airflow, "operator")

    form = operator.form("rebuild_universal")
    choose(form, "MonthlySummaryProjector: monthly_summaries", why="totals of travel are doubled")
    operator.shoot("form")
    tick(form, "How it is checked and switched", "Ask before the switch")
    form.get_by_role("button", name="Trigger").click()
    expect(operator.page.get_by_role("dialog")).to_have_count(0)

    # It rests for the sake of the replicas, and says so; then by hand.
    operator.watch()
    bars = operator.run.get_by_role("progressbar")
    expect(bars).to_have_count(2)
    expect(operator.run.get_by_text("replica lag 100 s")).to_have_count(2)
    assert all(float(bar.get_attribute("value") or "nan") < 1 for bar in bars.all())
    operator.shoot("page-light")
    with operator.narrow():
        assert operator.frame.locator("html").evaluate("page => page.scrollWidth - page.clientWidth") == 0
        operator.shoot("page-narrow")
    operator.press("Pause")
    expect(operator.run.get_by_role("heading", name="paused by operator")).to_be_visible()
    application.execute("UPDATE replica_lag SET seconds = 0")
    expect(operator.run.get_by_text("paused by operator").nth(1)).to_be_visible()
    operator.press("Resume")
    for at in range(2):
        expect(bars.nth(at)).to_have_attribute("value", re.compile(r"1(\.0)?"))

    # Somebody has to approve, with the comparison before their eyes; the page leads there, out of its frame.
    expect(operator.run.get_by_role("heading", name="waits for approval")).to_be_visible()
    expect(operator.run.get_by_role("heading", name="Verification: passed")).to_be_visible()
    operator.run.get_by_role("link", name="Approve or reject").click()
    operator.page.wait_for_url("**/required_actions")
    expect(operator.page.get_by_text("totals of travel are doubled")).to_be_visible()
    operator.shoot("approval")
    approve(operator, running_airflow)

    # The window is shut; who may only look, in the dark, sees the same and finds nothing to press.
    reader = User(browser, running_airflow, "reader", theme="dark")
    reader.watch()
    expect(reader.run.get_by_role("heading", name="waits for low traffic")).to_be_visible()
    expect(reader.rebuild.get_by_text("outside the low-traffic window")).to_be_visible()
    expect(reader.frame.locator("html")).to_have_attribute("data-theme", "dark")
    expect(reader.run.get_by_role("button")).to_have_count(0)
    reader.shoot("page-dark")
    # It opens, but the application is busy; then it is quiet.
    application.write_spec(**BASE, low_traffic=open_window(-1, 5) | {"max_appends_per_minute": 60})
    expect(reader.rebuild.get_by_text(re.compile(r"The gate.*appends [\d,]+ per minute \(limit 60"))).to_be_visible()
    assert application.value("SELECT count(*) FROM category_summaries WHERE user_id = 0") == 1
    application.pace = 10
    expect(reader.rebuild.get_by_text("Nothing is being rebuilt.")).to_be_visible()
    application.pace = 0.1
    expect(reader.rebuild.get_by_role("row", name="Rebuild").first).to_contain_text("switched")
    expect(reader.rebuild.get_by_role("cell", name="category_summaries_old")).to_be_visible()
    assert application.value("SELECT count(*) FROM category_summaries WHERE user_id = 0") == 0
    run = reader.rebuild.get_by_role("link", name=re.compile("retired by")).first.get_attribute("href") or ""
    operator.open(f"{run.removeprefix('../')}/tasks/atomic_swap/asset_events")
    expect(operator.page.get_by_text("universal.category_summaries").first).to_be_visible()
    operator.shoot("asset-events")
    operator.shoot_graph(run.removeprefix("../"))

    # Back again, from the UI.
    form = operator.form("rollback_universal")
    form.get_by_role("button", name="What is taken back").click()
    say_why(form, "the new totals are worse")
    form.get_by_role("button", name="Trigger").click()
    expect(reader.rebuild.get_by_role("row", name="Rebuild").first).to_contain_text("taken back by")
    assert application.value("SELECT count(*) FROM category_summaries WHERE user_id = 0") == 1
    reader.shoot("rolled-back")
    assert operator.elsewhere == [] and reader.elsewhere == []


def test_a_verification_that_fails_and_is_tried_again(
    browser: Browser, running_airflow: RunningAirflow, application: Application
) -> None:
    """Rows were lost, so green has more than the tolerance allows: it is raised, and the task cleared."""
    application.write_spec(**BASE)
    application.execute("DELETE FROM monthly_summaries WHERE mod(user_id, 3) = 0")
    lost = application.value("SELECT count(*) FROM monthly_summaries")
    operator = User(browser, running_airflow, "operator")
    form = operator.form("rebuild_universal")
    choose(
        form, "ExpenseProjector: expenses", "CategorySummaryProjector: category_summaries", why="a third of the months was lost"
    )
    tick(form, "How it is checked and switched", "Swap now")
    form.get_by_role("button", name="Trigger").click()
    expect(operator.page.get_by_role("dialog")).to_have_count(0)

    operator.watch()
    expect(operator.run.get_by_role("heading", name="failed at verify")).to_be_visible()
    expect(operator.run.get_by_text(re.compile("is a drift of .* more than the 5 % allowed"))).to_be_visible()
    operator.run.get_by_text("some keys of monthly_summaries").click()
    expect(operator.run.get_by_text("only after", exact=True).last).to_be_visible()
    operator.shoot("verification-failed")
    assert application.value("SELECT count(*) FROM monthly_summaries") < lost * 1.2

    application.write_spec(**BASE, verify={"max_count_drift_percent": 100})
    operator.run.get_by_role("link", name="verify").click()
    operator.page.wait_for_url("**/tasks/verify_counts")
    operator.page.get_by_role("button", name="to clear").click()
    operator.page.get_by_role("dialog").get_by_role("button", name="Confirm").click()
    # Whoever leaves the page before Airflow has answered takes the request with them.
    expect(operator.page.get_by_role("dialog")).to_have_count(0)
    operator.watch()
    expect(operator.rebuild.get_by_role("row", name="Rebuild").first).to_contain_text("switched")
    assert application.value("SELECT count(*) FROM monthly_summaries") > lost * 1.2
