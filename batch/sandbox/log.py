"""The request log: one line for each request, at both servers. No key, no signature, no prompt."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from aiohttp import web

from batch.sandbox.api import PATH
from batch.sandbox.engine import Engine, task_id_of_video

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_MOST = 64  # characters of an id that stand in the log


@dataclass(frozen=True, slots=True)
class Logged:
    """A request that was answered. *status* None: the connection was closed without an answer.

    *external_task_id* is that of the task in question, or what was asked for.
    """

    moment: float
    method: str
    path: str
    status: int | None
    external_task_id: str | None

    def __str__(self) -> str:
        time = datetime.fromtimestamp(self.moment).astimezone().isoformat(timespec="milliseconds")
        status = "---" if self.status is None else self.status
        said = f"{time} {self.method} {self.path} {status} {self.external_task_id or '-'}"
        return said if said.isprintable() else ascii(said)[1:-1]


def logged(
    handler: Handler, engine: Engine, now: Callable[[], float], log: Callable[[Logged], None]
) -> Handler:
    """Return a handler that tells *log* of every request once it is answered."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        moment = now()
        status: int | None = None
        about = await _about(request, engine)
        try:
            response = await handler(request)
            is_sent = request.transport is not None and not request.transport.is_closing()
            status = response.status if is_sent else None
            return response
        finally:
            log(Logged(moment, request.method, request.path, status, about))

    return handle


async def _about(request: web.BaseRequest, engine: Engine) -> str | None:
    """Return the external id of the task that a request is about."""
    if request.path == PATH and request.method == "POST":
        return _named(await request.read())
    reference = request.path.removeprefix(PATH + "/")
    if reference == request.path:
        reference = task_id_of_video(request.path.rpartition("/")[2].partition("-")[0])
    task = engine.by_task_id(reference)
    return (reference if task is None else task.external_task_id or reference)[:_MOST] or None


def _named(body: bytes) -> str | None:
    try:
        named = json.loads(body).get("external_task_id")
    except (ValueError, AttributeError):
        return None
    return None if named is None else str(named)[:_MOST]
