"""The edge to aiohttp: requests in, answers out, and the faults that are in the line."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from weakref import WeakKeyDictionary

from aiohttp import web

from batch.sandbox.api import Api, Request
from batch.sandbox.cdn import Cdn, hang_up
from batch.sandbox.control import PREFIX, Control
from batch.sandbox.dice import Subject
from batch.sandbox.faults import FaultRule
from batch.sandbox.links import is_video_path
from batch.sandbox.shapes import Answer, as_json, refusal
from batch.sandbox.validation import RefusalError
from batch.sandbox.world import World

_LONG_S = 3600.0  # a hang without a length of its own
_FORBIDDEN = as_json({"error": f"{PREFIX} is served to this machine only"}, 403)


class Edge:
    """Serves the API, and the videos whose links lead to the API's own origin."""

    def __init__(self, api: Api, control: Control, cdn: Cdn, world: World) -> None:
        self._api, self._control, self._cdn, self._world = api, control, cdn, world
        self._answered: WeakKeyDictionary[asyncio.BaseTransport, float] = WeakKeyDictionary()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if self._is_lost(request):
            hang_up(request)
            return web.Response()
        try:
            return await self._handle(request)
        finally:
            if request.transport is not None:
                self._answered[request.transport] = asyncio.get_running_loop().time()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if is_video_path(request.path):
            return await self._video(request)
        body = await request.read() if request.body_exists else b""
        asked = Request(request.method, request.path, request.headers, body, request.rel_url.query)
        if request.path.startswith(PREFIX):
            return _response(self._control.answer(asked) if _is_local(request) else _FORBIDDEN)
        answer, fault = self._api.answer(asked)
        if self._world.config.latency_s:
            await asyncio.sleep(self._world.config.latency_s)
        if fault is None:
            return _response(answer)
        return await _faulty_response(request, answer, fault)

    async def _video(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a video to the owner of a key."""
        try:
            self._api.account(request.headers)
        except RefusalError as exc:
            return _response(refusal(exc.status, exc.code, exc.message, self._world.request_id()))
        return await self._cdn.serve(request)

    def _is_lost(self, request: web.BaseRequest) -> bool:
        """Return whether the connection idled for so long that its next request is lost."""
        rules = [rule for rule in self._world.faults.plan.rules if rule.where == "connection"]
        answered_at = self._answered.get(request.transport) if request.transport else None
        if answered_at is None:
            return False
        idle_s = asyncio.get_running_loop().time() - answered_at
        is_idle = any(idle_s >= rule.lasts(5.0) for rule in rules)
        return is_idle and self._world.faults.pick("connection", Subject("")) is not None


def _is_local(request: web.BaseRequest) -> bool:
    """Return whether this machine asks, and not a web page in its browser."""
    try:
        is_loopback = ip_address((request.remote or "").partition("%")[0]).is_loopback
    except ValueError:
        return False
    return is_loopback and "Origin" not in request.headers


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def _faulty_response(
    request: web.BaseRequest, answer: Answer, fault: FaultRule
) -> web.StreamResponse:
    """Send the answer late, half, or not at all, as the fault demands."""
    match fault.base_kind:
        case "drop":
            hang_up(request)
        case "hang":
            await asyncio.sleep(fault.lasts(_LONG_S))
            hang_up(request)
        case "slow":
            await asyncio.sleep(fault.lasts(2.0))
        case "truncated":
            return await _half(request, answer, fault.at)
        case _:
            pass
    return _response(answer)


async def _half(request: web.BaseRequest, answer: Answer, part: float) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    response.content_type = "application/json"
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: int(len(answer.body) * part)])
    hang_up(request, is_clean=True)
    return response
