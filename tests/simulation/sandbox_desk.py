"""The API of the sandbox in memory, with a clock that stands still."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

from batch.sandbox import FaultPlan, SandboxConfig, Stats, Task
from batch.sandbox.api import PATH, Api, Request
from batch.sandbox.control import PREFIX, Control
from batch.sandbox.world import World

START = 1_800_000_000.0
BODY: dict[str, Any] = {
    "prompt": "A fox walks through tall grass",
    "model_name": "kling-v2-6",
    "mode": "std",
    "duration": "5",
}


class Desk:
    """A minimal client. *heads* are the headers of each answer so far."""

    def __init__(self, config: SandboxConfig) -> None:
        self.moment = START
        self.heads: list[dict[str, str]] = []
        self.world = World.from_config(config, lambda: self.moment)
        self.world.links.origin = "https://cdn.example"
        self.world.engine.open()
        self.api = Api(self.world, lambda _task: None)
        self.control = Control(self.world)

    def close(self) -> None:
        self.world.engine.close()

    @property
    def stats(self) -> Stats:
        return self.world.stats

    @property
    def tasks(self) -> list[Task]:
        return list(self.world.engine)

    def ask(
        self, method: str, target: str, *, key: str | None = "k", body: Any = None, raw: bytes = b""
    ) -> tuple[int, Any]:
        """Return the status and the body, parsed if it is JSON."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        path, _, query = target.partition("?")
        sent = raw if body is None else json.dumps(body).encode()
        asked = Request(method, path, headers, sent, dict(parse_qsl(query)))
        is_own = path.startswith(PREFIX)
        answer = self.control.answer(asked) if is_own else self.api.answer(asked)[0]
        self.heads.append(answer.headers)
        text = answer.body.decode()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def post(self, key: str | None = "k", **changes: Any) -> tuple[int, Any]:
        body = {name: value for name, value in {**BODY, **changes}.items() if value is not None}
        return self.ask("POST", PATH, key=key, body=body)

    def create(self, **changes: Any) -> str:
        """Post, and return the task id."""
        status, answer = self.post(**changes)
        assert status == 200, answer
        return self.tasks[-1].task_id

    def query(self, reference: str, key: str = "k") -> tuple[int, Any]:
        return self.ask("GET", f"{PATH}/{reference}", key=key)


def desk(*faults: str, **options: Any) -> Desk:
    """Return a desk at a sandbox with these faults and options."""
    return Desk(SandboxConfig(seed=1, faults=FaultPlan.from_strings(faults), **options))
