"""Every route of the page, asked by nobody, by who may only look, and by who may act; over HTTP, as a browser would."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from projection_rebuild_airflow import links
from tests.browser.harness.running import RunningAirflow

VALUES = {"dag_id": "rebuild_universal", "name": "page.js"}
"""For the parameters in paths; a route with another one needs a value here, or the tests fail."""


def routes() -> list[tuple[str, str]]:
    """Method and path of all that the app answers to, whatever it is."""
    from projection_rebuild_airflow.page.app import app

    found = []
    for route in app.routes:
        methods = getattr(route, "methods", None)
        assert methods, f"{route} is mounted as a whole and asks nobody who they are"
        found += [(method, route.path.format(**VALUES)) for method in sorted(methods - {"HEAD"})]
    return found


class Client:
    """Asks as somebody with a session cookie, as a browser does."""

    def __init__(self, airflow: RunningAirflow, user: str | None) -> None:
        self.url = f"{airflow.url}/{links.PAGE}"
        self.cookie = f"_token={airflow.token(user)}" if user else ""

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        """Status and content."""
        body = json.dumps({"run_id": "nothing"}).encode() if method != "GET" else None
        given = {"Content-Type": "application/json", "Cookie": self.cookie} | {k.replace("_", "-"): v for k, v in headers.items()}
        query = urlencode({"run_id": "nothing"})
        request = Request(f"{self.url}{path}?{query}", method=method, data=body, headers=given)  # noqa: S310 - our own
        try:
            with urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


def test_without_a_login_every_route_is_refused(running_airflow: RunningAirflow) -> None:
    nobody, forged = Client(running_airflow, None), Client(running_airflow, None)
    forged.cookie = "_token=eyJhbGciOiJub25lIn0.eyJzdWIiOiJvcGVyYXRvciIsInJvbGUiOiJBRE1JTiJ9."
    assert len(routes()) >= 5
    for method, path in routes():
        assert nobody.ask(method, path, X_Projection_Rebuilds="page")[0] == 401, (method, path)
        assert forged.ask(method, path, X_Projection_Rebuilds="page")[0] in (401, 403), (method, path)
    for path in ("/docs", "/openapi.json", "/redoc"):
        assert nobody.ask("GET", path)[0] in (401, 404)


def test_who_may_only_look_looks_and_is_refused_whatever_changes_anything(running_airflow: RunningAirflow) -> None:
    reader = Client(running_airflow, "reader")
    for method, path in routes():
        status, said = reader.ask(method, path, X_Projection_Rebuilds="page")
        if method == "GET":
            assert status != 401 and status != 403, (path, said)
        else:
            assert status == 403, (path, said)
    assert "universal" in reader.ask("GET", "/")[1]
    assert json.loads(reader.ask("GET", "/dags/rebuild_universal/now")[1])["problem"] == ""


def test_another_site_cannot_act_with_an_operators_cookie(running_airflow: RunningAirflow) -> None:
    operator = Client(running_airflow, "operator")
    acting = [(method, path) for method, path in routes() if method != "GET"]
    assert acting
    for method, path in acting:
        # All that a form of another site could send.
        assert operator.ask(method, path)[0] == 403
        assert operator.ask(method, path, Content_Type="text/plain", X_Projection_Rebuilds="page")[0] == 422
        assert operator.ask("GET", path)[0] == 405
        # And from the page itself: the ledger has no such run.
        status, said = operator.ask(method, path, X_Projection_Rebuilds="page")
        assert status == 409 and "nothing" in said, (path, said)


def test_a_dag_that_is_none_of_ours_and_a_file_that_is_none_of_ours(running_airflow: RunningAirflow) -> None:
    operator = Client(running_airflow, "operator")
    assert operator.ask("GET", "/dags/something_else/now")[0] == 404
    assert operator.ask("GET", "/assets/..%2Fapp.py")[0] == 404
    assert operator.ask("GET", "/assets/app.py")[0] == 404


def test_nothing_of_it_listens_beyond_this_machine(running_airflow: RunningAirflow) -> None:
    assert running_airflow.listens_on() == {"127.0.0.1"}
