"""The API without I/O: a request in, an answer and the fault that hits it out.

One method from request to answer, without router or middleware: benchmarks send thousands of
requests through it, and the simulated nights ask it in memory, in virtual time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from batch.sandbox.canned import CANNED
from batch.sandbox.dice import Subject
from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultRule
from batch.sandbox.links import task_object
from batch.sandbox.shapes import (
    OWN_ORIGIN,
    Answer,
    as_json,
    kling_error,
    page,
    refusal,
    relay_error,
    success,
)
from batch.sandbox.validation import Order, RefusalError, read_order
from batch.sandbox.world import World

PATH = "/kling/v1/videos/text2video"


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request. *path* and *query* are decoded."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""
    query: Mapping[str, str] = field(default_factory=dict)


class Api:
    """Answers requests. *on_created* is called with every new task."""

    def __init__(self, world: World, on_created: Callable[[Task], None]) -> None:
        self._world = world
        self._on_created = on_created

    def answer(self, request: Request) -> tuple[Answer, FaultRule | None]:
        """Return the answer to a request, and the fault of the line to send it with."""
        try:
            answer, fault = self._answer(request)
        except RefusalError as exc:
            return refusal(exc.status, exc.code, exc.message, self._world.request_id()), None
        if fault is not None and (head := fault.head(self._world.now())):
            answer = replace(answer, headers={**answer.headers, **head})
        return answer, fault

    def _answer(self, request: Request) -> tuple[Answer, FaultRule | None]:
        fault = self._world.faults.pick("any", Subject(request.path))
        if fault is None:
            return self._kling(request)
        answer = self._instead(fault)
        if answer is None and fault.base_kind in ("drop", "hang"):
            answer = page(404, "404 Not Found")  # which is never sent
        return answer or self._spoiled(self._kling(request)[0], fault), fault

    def _kling(self, request: Request) -> tuple[Answer, FaultRule | None]:
        path = request.path
        if path == PATH and request.method == "POST":
            return self._count_submit(request)
        if path != PATH and not path.startswith(PATH + "/"):
            return page(404, "404 Not Found"), None
        if request.method != "GET":
            text = f"method {request.method} is not supported"
            return kling_error(404, 1202, text, self._world.request_id()), None
        account = self.account(request.headers)
        if path == PATH:
            return self._list(request, account)
        return self._query(account, path[len(PATH) + 1 :])

    def account(self, headers: Mapping[str, str]) -> str:
        """Return a hash of the key; the key itself is kept nowhere.

        Raises:
            RefusalError: there is no key, or it is not the right one.
        """
        header = headers.get("Authorization", "")
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

    def _instead(self, fault: FaultRule) -> Answer | None:
        """Return the answer that the fault puts in place of the real one, if it does."""
        canned = CANNED.get(fault.base_kind)
        return None if canned is None else canned.answer(self._world.request_id(), fault.message)

    # -- submitting --------------------------------------------------------------------------

    def _count_submit(self, request: Request) -> tuple[Answer, FaultRule | None]:
        stats = self._world.stats
        stats.posts += 1
        stats.post_times.append(self._world.now())
        try:
            return self._submit(request)
        except RefusalError:
            stats.refused += 1
            raise

    def _submit(self, request: Request) -> tuple[Answer, FaultRule | None]:
        world = self._world
        account = self.account(request.headers)
        try:
            body = json.loads(request.body)
        except ValueError:
            raise RefusalError(400, 1200, "Invalid request parameters: no JSON") from None
        said = body if isinstance(body, dict) else {}
        prompt = str(said.get("prompt", ""))
        key = str(said.get("external_task_id") or prompt)
        about = Subject(key, len(world.engine) + 1, prompt)
        fault = world.faults.pick("submit", about)
        if fault is not None and not fault.creates:
            world.stats.refused += 1
            refused = kling_error(500, 5000, "not created", world.request_id())
            return self._instead(fault) or refused, fault
        task = self._create(account, body)
        shown = task_object(
            task, "submitted", None, tells_external_id=world.config.tells_external_id
        )
        del shown["task_result"]
        answer = success(shown, world.request_id(), world.faults.dress("submit", about))
        return (answer if fault is None else self._spoiled(answer, fault)), fault

    def _create(self, account: str, body: Any) -> Task:
        world = self._world
        order: Order = read_order(
            body,
            max_prompt_chars=world.config.max_prompt_chars,
            max_negative_prompt_chars=world.config.max_negative_prompt_chars,
        )
        moment, number = world.now(), len(world.engine) + 1
        key = order.external_task_id or order.prompt
        world.engine.admit(account, order, moment)
        ending = world.faults.pick("outcome", Subject(key, number, order.prompt))
        task = world.engine.create(account, order, body, moment, ending)
        world.stats.created += 1
        in_flight = world.engine.in_flight(account, moment)
        world.stats.most_in_flight = max(world.stats.most_in_flight, in_flight)
        self._on_created(task)
        return task

    def _spoiled(self, answer: Answer, fault: FaultRule) -> Answer:
        """Return the answer that is sent for a request that was served."""
        if fault.base_kind == "garbled-2xx":
            return Answer(200, answer.body[: int(len(answer.body) * fault.at)])
        return self._instead(fault) or answer

    # -- asking ------------------------------------------------------------------------------

    def _query(self, account: str, reference: str) -> tuple[Answer, FaultRule | None]:
        world, moment = self._world, self._world.now()
        task = world.engine.by_task_id(reference)
        is_lookup = task is None
        if task is None:
            task = world.engine.by_external_id(account, reference)
            is_lookup = task is not None or not reference.isdigit()
        where = "lookup" if is_lookup else "query"
        world.stats.note_query(reference, moment, is_lookup=is_lookup)
        about = Subject(reference)
        if task is not None:
            about = Subject(reference, task.number, task.prompt)
        fault = world.faults.pick(where, about)
        if fault is not None and (answer := self._instead(fault)) is not None:
            return answer, fault
        if fault is not None and fault.kind == "other-task":
            task = next(iter(world.engine), None)
        elif task is not None and not world.sees(account, task, moment, by_task_id=not is_lookup):
            task = None
        if task is None:
            return self._not_found(), fault
        dress = world.faults.dress(where, about)
        shown = world.shown(task, task.status(moment), is_at_api=dress.link == OWN_ORIGIN)
        answer = success(_told(shown, fault), world.request_id(), dress)
        return (answer if fault is None else self._spoiled(answer, fault)), fault

    def _not_found(self) -> Answer:
        if self._world.config.not_found == "kling":
            return kling_error(404, 1203, "task not found", self._world.request_id())
        return relay_error(400, "task_not_exist", "task_not_exist")

    def _list(self, request: Request, account: str) -> tuple[Answer, FaultRule | None]:
        world = self._world
        world.stats.lists += 1
        fault = world.faults.pick("list", Subject(account))
        if fault is not None and (answer := self._instead(fault)) is not None:
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
        envelope = {"code": 0, "message": "SUCCEED", "request_id": world.request_id()}
        return as_json({**envelope, "data": tasks}), fault


@lru_cache(maxsize=256)
def _account_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _count(request: Request, name: str, *, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
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
