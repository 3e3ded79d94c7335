"""The application: a page at `/`, answers at `/predict`, health at `/health`; mistakes are JSON with one line."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vimlight import __version__
from vimlight.errors import VimlightError
from vimlight.serving.guard import Guard
from vimlight.serving.page import policy, render
from vimlight.serving.reading import RefusedError, decoded, read_body
from vimlight.serving.tasks import ServedTasks

__all__ = ["Limits", "create_app"]


class Limits(NamedTuple):
    """What one request may ask for, and how many may wait.

    Attributes:
        megabytes: Size of an image file, in millions of bytes.
        megapixels: Size of an image, in millions of pixels.
        waiting: How many requests may be read, wait or be answered at a time; one is computed at a time.
    """

    megabytes: float = 20.0
    megapixels: float = 50.0
    waiting: int = 8


def create_app(served: ServedTasks, limits: Limits | None = None, names: Collection[str] = ("localhost",)) -> Starlette:
    """Creates the application.

    Args:
        served: The tasks.
        limits: What requests may ask for.
        names: Names, beside addresses, that the machine is asked by.
    """
    answering = _Answering(served, limits or Limits())
    routes = [
        Route("/", answering.page, methods=["GET"]),
        Route("/health", answering.health, methods=["GET"]),
        Route("/predict", answering.predict, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {HTTPException: _known, RefusedError: _refused, VimlightError: _mistake, Exception: _bug}
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(Guard, names=names)])


class _Answering:
    """What stands behind the addresses."""

    def __init__(self, served: ServedTasks, limits: Limits) -> None:
        self._served, self._limits = served, limits
        self._page, self._policy = render(served, limits.megabytes), policy()
        self._thread = ThreadPoolExecutor(1, "predict")
        self._inside = 0

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})

    async def health(self, request: Request) -> Response:
        tasks = {name: task.about() for name, task in self._served.tasks.items()}
        about = {"vimlight": __version__, "backbone": self._served.backbone.name, "passes": self._served.passes}
        return JSONResponse({"status": "ok", **about, "tasks": tasks})

    async def predict(self, request: Request) -> Response:
        if self._inside >= self._limits.waiting:
            busy = f"{self._inside} images are being answered; try again"
            return JSONResponse({"error": busy}, 503, {"Retry-After": "1"})
        self._inside += 1
        try:
            body = await read_body(request, int(1e6 * self._limits.megabytes))
            files = request.query_params.get("files") == "1"
            work = asyncio.get_running_loop().run_in_executor(self._thread, self._answer, body, files)
            return JSONResponse(await work)
        finally:
            self._inside -= 1

    def _answer(self, body: bytes, files: bool) -> dict[str, Any]:
        image = decoded(body, int(1e6 * self._limits.megapixels))
        return {
            "width": image.width, "height": image.height, "tasks": self._served.answers(image, files=files)
        }  # fmt: skip


async def _known(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": f"{request.method} {request.url.path}: {error.detail}"}, error.status_code,
                        error.headers)  # fmt: skip


async def _refused(request: Request, error: RefusedError) -> Response:
    return JSONResponse({"error": str(error)}, error.status)


async def _mistake(request: Request, error: VimlightError) -> Response:
    return JSONResponse({"error": str(error).replace("\n", " ")}, 422)


async def _bug(request: Request, error: Exception) -> Response:
    # Starlette raises it once more behind this, for the server's own log.
    return JSONResponse({"error": "the image could not be answered; the server's log says why"}, 500)
