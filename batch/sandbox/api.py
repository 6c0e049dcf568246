"""The API: POST, GET by either id, list, and the sandbox's own two pages.

A plain function from request to response without router or middleware: benchmarks send thousands
of requests through it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from aiohttp import web

from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultPlan, FaultPlanError, FaultRule, Subject
from batch.sandbox.links import task_object
from batch.sandbox.shapes import (
    Answer,
    as_json,
    canned,
    kling_error,
    new_request_id,
    page,
    refusal,
    relay_error,
    success,
)
from batch.sandbox.stats import report
from batch.sandbox.validation import Order, RefusalError, read_order
from batch.sandbox.world import World

PATH = "/kling/v1/videos/text2video"
_LONG_S = 3600.0  # a hang without a length of its own


class Api:
    """Answers requests. *on_created* hears of every new task."""

    def __init__(self, world: World, on_created: Callable[[Task], None]) -> None:
        self._world = world
        self._on_created = on_created

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        if path.startswith("/sandbox/"):
            return _response(await self._own_page(request, path))
        if path != PATH and not path.startswith(PATH + "/"):
            return _response(page(404, "404 Not Found"))
        try:
            answer, fault = await self._kling(request, path)
        except RefusalError as exc:
            answer, fault = refusal(exc.status, exc.code, exc.message), None
        if self._world.config.latency_s:
            await asyncio.sleep(self._world.config.latency_s)
        if fault is None:
            return _response(answer)
        return await _faulty_response(request, answer, fault)

    async def _kling(self, request: web.BaseRequest, path: str) -> tuple[Answer, FaultRule | None]:
        stats, method = self._world.stats, request.method
        is_collection = path == PATH
        if method == "POST" and is_collection:
            stats.posts += 1
            stats.post_times.append(self._world.now())
            try:
                return await self._submit(request)
            except RefusalError:
                stats.refused += 1
                raise
        if method != "GET":
            return kling_error(404, 1202, f"method {method} is not supported"), None
        account = self._account(request)
        if is_collection:
            return self._list(request, account)
        return self._query(account, path[len(PATH) + 1 :])

    def _account(self, request: web.BaseRequest) -> str:
        """Tell whose key it is; the key itself is forgotten at once."""
        header = request.headers.get("Authorization", "")
        scheme, _, key = header.partition(" ")
        expected = self._world.config.api_key
        if header and scheme.lower() == "bearer" and key.strip() and expected in (None, key):
            return _account_of(key)
        self._world.stats.unauthorized += 1
        if not header or (scheme.lower() == "bearer" and not key.strip()):
            raise RefusalError(401, 1001, "Authorization is empty")
        if scheme.lower() != "bearer":
            raise RefusalError(401, 1000, "Authentication failed")
        raise RefusalError(401, 1002, "Authorization is invalid")

    # -- submitting --------------------------------------------------------------------------

    async def _submit(self, request: web.BaseRequest) -> tuple[Answer, FaultRule | None]:
        world = self._world
        account = self._account(request)
        try:
            body = json.loads(await request.read())
        except ValueError:
            raise RefusalError(400, 1200, "Invalid request parameters: no JSON") from None
        said = body if isinstance(body, dict) else {}
        prompt = str(said.get("prompt", ""))
        key = str(said.get("external_task_id") or prompt)
        about = Subject(key, len(world.engine) + 1, prompt)
        fault = world.faults.pick("submit", about)
        if fault is not None and not fault.creates:
            world.stats.refused += 1
            return canned(fault.base_kind) or kling_error(500, 5000, "not created"), fault
        task = self._create(account, body)
        shape, is_numeric = world.faults.dress("submit", about)
        shown = task_object(task, "submitted", None)
        del shown["task_result"]
        answer = success(shown, shape, has_numeric_ids=is_numeric)
        return (answer if fault is None else _spoiled(answer, fault)), fault

    def _create(self, account: str, body: Any) -> Task:
        world = self._world
        order: Order = read_order(
            body,
            max_prompt_chars=world.config.max_prompt_chars,
            max_negative_prompt_chars=world.config.max_negative_prompt_chars,
        )
        moment, number = world.now(), len(world.engine) + 1
        key = order.external_task_id or order.prompt
        ending = world.faults.pick("outcome", Subject(key, number, order.prompt))
        fault = None if ending is None else ending.kind
        task = world.engine.create(account, order, body, moment, fault)
        world.stats.created += 1
        in_flight = world.engine.in_flight(account, moment)
        world.stats.most_in_flight = max(world.stats.most_in_flight, in_flight)
        self._on_created(task)
        return task

    # -- asking ------------------------------------------------------------------------------

    def _query(self, account: str, reference: str) -> tuple[Answer, FaultRule | None]:
        world = self._world
        moment = world.now()
        by_id = world.engine.by_task_id(reference)
        by_external_id = world.engine.by_external_id(account, reference)
        is_lookup = by_id is None and (by_external_id is not None or not reference.isdigit())
        where, task = ("lookup", by_external_id) if is_lookup else ("query", by_id)
        if is_lookup:
            world.stats.lookups += 1
        else:
            world.stats.queries += 1
            world.stats.query_times[reference].append(moment)
        about = Subject(reference)
        if task is not None:
            about = Subject(reference, task.number, task.prompt)
        fault = world.faults.pick(where, about)
        if fault is not None and (answer := canned(fault.base_kind)) is not None:
            return answer, fault
        if (
            task is None
            or task.account != account
            or (is_lookup and not world.config.lookup)
            or not world.engine.is_visible(task, moment)
        ):
            return self._not_found(), fault
        shape, is_numeric = world.faults.dress(where, about)
        shown = _told(world.shown(task, task.status(moment)), fault)
        answer = success(shown, shape, has_numeric_ids=is_numeric)
        return (answer if fault is None else _spoiled(answer, fault)), fault

    def _not_found(self) -> Answer:
        if self._world.config.not_found == "kling":
            return kling_error(404, 1203, "task not found")
        return relay_error(400, "task_not_exist", "task_not_exist")

    def _list(self, request: web.BaseRequest, account: str) -> tuple[Answer, FaultRule | None]:
        world = self._world
        world.stats.lists += 1
        fault = world.faults.pick("list", Subject(account))
        if fault is not None and (answer := canned(fault.base_kind)) is not None:
            return answer, fault
        if not world.config.list_tasks:
            return page(404, "404 Not Found"), fault
        number = _count(request, "pageNum", default=1, most=1000)
        size = _count(request, "pageSize", default=30, most=500)
        moment = world.now()
        tasks = [
            world.shown(task, task.status(moment))
            for task in world.engine.page(account, number, size)
            if world.engine.is_visible(task, moment)
        ]
        envelope = {"code": 0, "message": "SUCCEED", "request_id": new_request_id(), "data": tasks}
        return as_json(envelope), fault

    # -- the sandbox's own pages -------------------------------------------------------------

    async def _own_page(self, request: web.BaseRequest, path: str) -> Answer:
        world = self._world
        if path == "/sandbox/stats" and request.method == "GET":
            fired = dict(world.faults.fired)
            return as_json(report(world.stats, world.engine, fired, world.now()))
        if path == "/sandbox/faults" and request.method == "POST":
            try:
                plan = FaultPlan.from_mapping(json.loads(await request.read()))
            except (FaultPlanError, ValueError, TypeError) as exc:
                return as_json({"error": str(exc)}, 400)
            world.faults.replace(plan)
            return as_json({"rules": len(plan.rules)})
        return as_json({"error": "there are GET /sandbox/stats and POST /sandbox/faults"}, 404)


@lru_cache(maxsize=256)
def _account_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _count(request: web.BaseRequest, name: str, *, default: int, most: int) -> int:
    text = request.rel_url.query.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise RefusalError(400, 1201, f"{name} is invalid: must be from 1 to {most}")
    return int(text)


def _told(shown: dict[str, Any], fault: FaultRule | None) -> dict[str, Any]:
    """Apply those faults of queries that lie about the task."""
    match None if fault is None else fault.kind:
        case "unknown-status":
            return {**shown, "task_status": "paused_for_review", "task_result": {}}
        case "backwards":
            return {**shown, "task_status": "submitted", "task_result": {}}
        case "no-url" if shown["task_status"] == "succeed":
            return {**shown, "task_result": {}}
        case "failed":
            message = fault.message if fault is not None else None
            told = {"task_status": "failed", "task_status_msg": message or "generation error"}
            return {**shown, **told, "task_result": {}}
        case _:
            return shown


def _spoiled(answer: Answer, fault: FaultRule) -> Answer:
    """Return what is answered instead, where the fault is in the answer and not in the line."""
    if fault.base_kind == "garbled-2xx":
        return Answer(200, answer.body[: int(len(answer.body) * fault.at)])
    return canned(fault.base_kind) or answer


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def _faulty_response(
    request: web.BaseRequest, answer: Answer, fault: FaultRule
) -> web.StreamResponse:
    """Send the answer as the fault has it: late, half, or not at all."""
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
    response = _response(answer)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = f"{fault.retry_after:g}"
    return response


async def _half(request: web.BaseRequest, answer: Answer, part: float) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    response.content_type = "application/json"
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: int(len(answer.body) * part)])
    hang_up(request, is_clean=True)
    return response


def hang_up(request: web.BaseRequest, *, is_clean: bool = False) -> None:
    """Close the connection under the request; *is_clean* lets what was written arrive."""
    if request.transport is None:
        return
    if is_clean:
        request.transport.close()
    else:
        request.transport.abort()
