"""The sandbox's own pages, under `/sandbox/`: they report what happened, and steer what comes.

They are served on the port of the API, to this machine only, without a key and without faults.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from batch.sandbox.api import Request
from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultPlan, FaultPlanError
from batch.sandbox.shapes import Answer, as_json
from batch.sandbox.stats import report
from batch.sandbox.world import World

PREFIX = "/sandbox/"
PAGES: dict[str, str] = {
    "GET /sandbox/stats": "counts of requests, and every task",
    "GET /sandbox/faults": "the faults in force, and how often each was applied",
    "POST /sandbox/faults": 'replaces them, from now on: ["query:500:0.3"]; [] for none',
    "POST /sandbox/finish": 'ends every open task now, or one: {"task_id": "…"},'
    ' {"external_task_id": "…"}',
    "POST /sandbox/reset": "forgets tasks and counts, and returns to the faults of the start",
}
_NAMES = ("task_id", "external_task_id")


class ControlError(Exception):
    """A request that cannot be carried out; the message says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Control:
    """Answers the requests under `/sandbox/`.

    *on_finished* is called with every task that is ended, *on_reset* when all tasks are forgotten.
    """

    def __init__(
        self,
        world: World,
        on_finished: Callable[[Task], None] = lambda _task: None,
        on_reset: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = world
        self._on_finished = on_finished
        self._on_reset = on_reset
        self._pages: dict[str, Callable[[bytes], Any]] = {
            "GET /sandbox/stats": self._stats,
            "GET /sandbox/faults": self._faults,
            "POST /sandbox/faults": self._replace_faults,
            "POST /sandbox/finish": self._finish,
            "POST /sandbox/reset": self._reset,
        }

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request; errors are `{"error": …}` with a fitting status."""
        page = self._pages.get(f"{request.method} {request.path}")
        if page is None:
            return as_json({"error": "there is no such page", "pages": PAGES}, 404)
        try:
            return as_json(page(request.body))
        except ControlError as error:
            return as_json({"error": str(error)}, error.status)

    def _stats(self, _body: bytes) -> dict[str, Any]:
        world = self._world
        return report(world.stats, world.engine, dict(world.faults.fired), world.now())

    def _faults(self, _body: bytes) -> dict[str, Any]:
        faults = self._world.faults
        return {
            "rules": [rule.to_mapping() for rule in faults.plan.rules],
            "seed": faults.plan.seed,
            "fired": dict(faults.fired),
        }

    def _replace_faults(self, body: bytes) -> dict[str, Any]:
        try:
            plan = FaultPlan.from_mapping(json.loads(body))
        except (FaultPlanError, ValueError, TypeError) as error:
            raise ControlError(str(error)) from None
        self._world.faults.replace(plan)
        return {"rules": len(plan.rules)}

    def _finish(self, body: bytes) -> dict[str, Any]:
        world, moment = self._world, self._world.now()
        ended = world.engine.finish(self._chosen(body), moment)
        for task in ended:
            self._on_finished(task)
        return {"finished": [task.task_id for task in ended]}

    def _chosen(self, body: bytes) -> Iterable[Task]:
        """Return the tasks that a body names; without a body all of them."""
        try:
            wanted = json.loads(body) if body.strip() else {}
        except ValueError:
            raise ControlError("the body is not valid JSON") from None
        if not isinstance(wanted, Mapping) or len(wanted) > 1 or not set(wanted) <= {*_NAMES}:
            raise ControlError(f"name one task by {' or '.join(_NAMES)}, or send no body for all")
        if not wanted:
            return list(self._world.engine)
        ((name, value),) = wanted.items()
        found = [task for task in self._world.engine if getattr(task, name) == str(value)]
        if not found:
            raise ControlError(f"no task has the {name} {value}", 404)
        return found

    def _reset(self, _body: bytes) -> dict[str, Any]:
        forgotten = len(self._world.engine)
        self._world.reset()
        self._on_reset()
        return {"forgotten": forgotten}
