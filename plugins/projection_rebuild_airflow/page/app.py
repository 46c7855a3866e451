"""The routes of the page.

Each authenticates the user through Airflow and checks their rights; no GET changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, get_user, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from projection_rebuild.api import Rebuild, RebuildError, SpecError, Troubled, limits
from projection_rebuild_airflow import ids, links, task_ids
from projection_rebuild_airflow.page.views.rebuild import rebuild_view
from projection_rebuild_airflow.page.watching import WATCHERS, Unseen, Watcher
from projection_rebuild_airflow.runs import open_spec

ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

GUARDS = {
    # The browser loads nothing from other hosts, runs nothing inline, and shows the page in frames of Airflow only.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_templates = Environment(
    loader=PackageLoader("projection_rebuild_airflow.page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)

# Without FastAPI's generated documentation: its routes would not authenticate anyone.
app = FastAPI(title="Projection rebuilds", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])


@app.exception_handler(RequestValidationError)
def _unusable(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answers a malformed request without quoting its body, which may be long or not serialisable."""
    errors = error.errors()[: limits.MOST_PROBLEMS]
    problems = [f"{limits.at(problem['loc'])}: {limits.shown(problem['msg'], 200)}" for problem in errors]
    return JSONResponse({"detail": "this request cannot be used. " + " | ".join(problems)}, 422)


def _from_our_page(x_projection_rebuilds: Annotated[str, Header()] = "") -> None:
    """Requires a header that no browser lets another site send along with a user's cookie."""
    if not x_projection_rebuilds:
        raise HTTPException(403, "only the page itself may send this request; send the header X-Projection-Rebuilds")


LOOKING = [
    Depends(requires_access_dag("GET", DagAccessEntity.RUN)),
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
]
"""Requires the right to see runs and tasks of the DAG that the path names."""

ACTING = [*LOOKING, Depends(requires_access_dag("PUT", DagAccessEntity.RUN)), Depends(_from_our_page)]
"""Requires the right to change runs of that DAG, and a request from our own page."""


class Which(BaseModel):
    """The body of a request that acts on a run."""

    model_config = ConfigDict(extra="forbid")

    run_id: Annotated[str, Field(max_length=limits.RUN_ID)]


def _may(user: Any, method: Any, dag_id: str) -> bool:
    """Whether a user has a right on the runs of a DAG: to read them (``GET``) or to change them (``PUT``)."""
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return get_auth_manager().is_authorized_dag(method=method, access_entity=DagAccessEntity.RUN, details=details, user=user)


def _sees_broken(user: Any) -> bool:
    """Whether a user may see broken specs. They belong to no DAG, so the rights on Airflow's import errors decide."""
    manager = get_auth_manager()
    return manager.is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user) and manager.is_authorized_dag(
        method="GET", user=user
    )


def _watcher(dag_id: str) -> Watcher:
    """The watcher of a spec, by the DAG of its rebuild or of its rollback.

    :raises HTTPException: 404, no usable spec has this DAG
    """
    for name, watcher in WATCHERS.all().items():
        if dag_id in ids.dag_ids(name):
            return watcher
    raise HTTPException(404, f"{dag_id} is no projection rebuild, or its spec cannot be used")


@app.get("/", response_class=HTMLResponse)
def page(user: GetUserDep, dag_id: str = "", run_id: str = "") -> HTMLResponse:
    """The page with all rebuilds that the user may see, or with the rebuild of one DAG run."""
    readable = [name for name in WATCHERS.all() if _may(user, "GET", ids.rebuild_dag_id(name))]
    if dag_id:
        readable = [name for name in readable if dag_id in ids.dag_ids(name)]
    html = _templates.get_template("page.html").render(
        rebuilds=readable,
        links=links,
        ids=ids,
        dag_id=dag_id,
        run_id=run_id,
        problems=[] if dag_id or not _sees_broken(user) else WATCHERS.problems(),
    )
    return HTMLResponse(html, headers=GUARDS)


@app.get("/assets/{name}")
def asset(name: str) -> Response:
    """A file that the page needs."""
    if name not in ASSETS:
        raise HTTPException(404, "there is no such file")
    content = files("projection_rebuild_airflow.page").joinpath("assets", name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers=GUARDS)


@app.get("/dags/{dag_id}/now", dependencies=LOOKING)
def now(dag_id: str, user: GetUserDep, run_id: str = "") -> dict[str, Any]:
    """The current state of a rebuild.

    :param run_id: only this DAG run; empty: all
    :returns: ``parts`` of the page as HTML by name, ``problem`` (empty: none), and ``again_in``, the seconds until the
        next request
    """
    watcher = _watcher(dag_id)
    try:
        view = rebuild_view(
            watcher.see(), lambda dag_id: _may(user, "PUT", dag_id), only=ids.ledger_id(dag_id, run_id) if run_id else ""
        )
    except Unseen as error:
        return {"problem": str(error), "parts": {}, "again_in": 5.0}
    parts = {
        part: _templates.get_template(f"{part}.html").render(view=view, links=links)
        for part in ("status", "runs", "traffic", "tables", "history")
    }
    return {"problem": "", "parts": parts, "again_in": view.again_in}


@app.get("/dags/{dag_id}/report", dependencies=LOOKING)
def report(dag_id: str, run_id: str) -> Response:
    """The report of one run, as Markdown."""
    with _run(dag_id, run_id) as rebuild:
        text = rebuild.report().as_markdown()
    download = {"Content-Disposition": f'attachment; filename="report-{dag_id}.md"'}
    return Response(text, media_type="text/markdown; charset=utf-8", headers=GUARDS | download)


@app.post("/dags/{dag_id}/pause", dependencies=ACTING)
def pause(dag_id: str, which: Which, user: GetUserDep) -> dict[str, str]:
    """Pauses the replays of a run until a user resumes them."""
    with _run(dag_id, which.run_id) as rebuild:
        rebuild.pause(by=user.get_name())
    return {"said": "Each replay commits what it has and waits."}


@app.post("/dags/{dag_id}/resume", dependencies=ACTING)
def resume(dag_id: str, which: Which, user: GetUserDep) -> dict[str, str]:
    """Resumes the replays of a run."""
    with _run(dag_id, which.run_id) as rebuild:
        rebuild.resume(by=user.get_name())
    return {"said": "The replays go on within seconds."}


@app.post("/dags/{dag_id}/swap-now", dependencies=ACTING)
def swap_now(dag_id: str, which: Which, user: GetUserDep) -> dict[str, str]:
    """Lets the swap of a run go ahead without waiting for low traffic."""
    with _run(dag_id, which.run_id) as rebuild:
        rebuild.swap_now(by=user.get_name())
    return {"said": "The switch no longer waits for low traffic; the gate sees this at its next look."}


@app.post("/dags/{dag_id}/approve", dependencies=ACTING)
def approve(dag_id: str, which: Which, user: GetUserDep) -> dict[str, str]:
    """Approves the swap of a run, for its last verification."""
    with _run(dag_id, which.run_id) as rebuild:
        rebuild.decide(True, by=user.get_name())
    return {"said": f"Approved. Clear the task {task_ids.APPROVE_SWAP}, and the run goes on."}


@app.post("/dags/{dag_id}/reject", dependencies=ACTING)
def reject(dag_id: str, which: Which, user: GetUserDep) -> dict[str, str]:
    """Rejects the swap of a run, for its last verification."""
    with _run(dag_id, which.run_id) as rebuild:
        rebuild.decide(False, by=user.get_name())
    return {"said": f"Rejected. Clear the task {task_ids.APPROVE_SWAP}, and the run ends without a switch."}


@contextmanager
def _run(dag_id: str, run_id: str) -> Iterator[Rebuild]:
    """A run, by its names in Airflow. Errors of the engine become HTTP errors.

    :raises HTTPException: 404, no usable spec has this DAG; 409, the engine refuses; 422, the spec is broken; 503, no
        database
    """
    spec = _watcher(dag_id).spec
    try:
        with open_spec(spec, ids.ledger_id(dag_id, run_id)) as rebuild:
            yield rebuild
    except SpecError as error:
        raise HTTPException(422, str(error)) from error
    except Troubled as error:
        # Only the gist: a database's own message may hold host names and accounts.
        raise HTTPException(503, f"{spec.read_models.conn_id} cannot be asked: {error.gist}") from error
    except RebuildError as error:
        raise HTTPException(409, str(error)) from error
