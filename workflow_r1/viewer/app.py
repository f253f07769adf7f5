"""The pages over HTTP, made and escaped here: the browser gets whole pages, and asks no other host."""

from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles

from workflow_r1.system.terminal import printable
from workflow_r1.viewer.guard import Guard
from workflow_r1.viewer.index import Index
from workflow_r1.viewer.pages import STATIC, Pages
from workflow_r1.viewer.rendering import environment
from workflow_r1.viewer.sources import ViewError

_LIVE = {"sources", "run", "step", "operators"}  # pages that a run changes while they are read


def create_app(index: Index, hosts: Collection[str]) -> FastAPI:
    """The application for an index that somebody keeps up to date.

    Args:
        hosts: `name:port` of each address that it is reached at.
    """
    pages = Pages(index)
    templates = environment(url=url, exported=False)
    app = FastAPI(openapi_url=None)
    app.add_middleware(Guard, hosts=hosts)
    app.mount("/static", StaticFiles(directory=STATIC))

    def render(name: str, **content: Any) -> Response:
        page = templates.get_template(f"{name}.html").render(current=name, live=name in _LIVE, **content)
        return HTMLResponse(page)

    def missing(message: str) -> Response:
        page = render("error", message=message, source=None)
        page.status_code = 404
        return page

    def page(name: str) -> Callable[[Request], Response]:
        def show(request: Request) -> Response:
            parameters = {key: value for key, value in request.query_params.items() if value}
            content = getattr(pages, name)(parameters)
            if name == "find":
                content["more"] = url("find", **{**parameters, "start": content["found"].next})
            if name == "trajectory":
                content["raw"] = url("raw", **parameters)
            return render(name, **content)

        return show

    for name in ("run", "step", "group", "trajectory", "find", "flips", "operators"):
        app.get(f"/{name}")(page(name))
    app.get("/")(page("sources"))

    @app.get("/raw")
    def raw(request: Request) -> Response:
        return PlainTextResponse(printable(pages.trajectory(request.query_params)["line"]))

    @app.get("/state")
    def state() -> Response:
        progress = index.progress()
        return JSONResponse({"version": index.version(), "read": progress.read, "size": progress.size})

    @app.exception_handler(ViewError)
    def not_there(request: Request, error: ViewError) -> Response:
        return missing(str(error))

    @app.exception_handler(404)
    def no_page(request: Request, error: Exception) -> Response:
        return missing("There is no such page.")

    return app


def url(page: str, **parameters: Any) -> str:
    """A page's address, which holds all that it shows."""
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"/{page}?{urlencode(given)}" if given else f"/{page}"
