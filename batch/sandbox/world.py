"""The state that the API, the video server and the callbacks share."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from batch.sandbox.config import SandboxConfig
from batch.sandbox.dice import FaultInjector, Subject
from batch.sandbox.engine import Engine, Task
from batch.sandbox.faults import FaultRule
from batch.sandbox.links import Links, task_object
from batch.sandbox.stats import Stats
from batch.sandbox.video.clips import Clip, padded, render


@dataclass(frozen=True, slots=True)
class World:
    """The insides of one sandbox. *now* returns seconds since the epoch; no other clock is read."""

    now: Callable[[], float]
    engine: Engine
    faults: FaultInjector
    stats: Stats
    links: Links
    dice: random.Random

    @classmethod
    def from_config(cls, config: SandboxConfig, now: Callable[[], float]) -> World:
        """Make an empty one."""
        return cls(
            now=now,
            engine=Engine(config),
            faults=FaultInjector(config.faults),
            stats=Stats(),
            links=Links(config.link_ttl_s),
            dice=random.Random(config.seed),  # noqa: S311 - request ids, no secrets
        )

    @property
    def config(self) -> SandboxConfig:
        """The configuration of this moment."""
        return self.engine.config

    def configure(self, **changes: Any) -> None:
        """Change fields of the configuration: a top-up, say, or another cap."""
        self.engine.config = replace(self.engine.config, **changes)

    def reset(self) -> None:
        """Forget tasks and counts, and return to the faults of the configuration."""
        self.engine.clear()
        self.stats.reset()
        self.faults.fired.clear()
        self.faults.replace(self.config.faults)

    def request_id(self) -> str:
        """Return a fresh request id that looks like the real ones."""
        return str(uuid.UUID(int=self.dice.getrandbits(128), version=4))

    def sees(self, account: str, task: Task, moment: float, *, by_task_id: bool) -> bool:
        """Tell whether a query of that account finds the task."""
        if not (by_task_id or self.config.lookup) or not self.engine.is_visible(task, moment):
            return False
        allowed = {"nothing": (), "task-ids": (True,), "everything": (True, False)}
        return task.account == account or by_task_id in allowed[self.config.other_keys]

    def shown(self, task: Task, status: str, *, is_at_api: bool = False) -> dict[str, Any]:
        """Return a task as answers show it, with a fresh link if there is a video."""
        url = None
        if status == "succeed":
            url = self.links.sign(task, self.now(), is_at_api=is_at_api)
        return task_object(task, status, url, tells_external_id=self.config.tells_external_id)

    def fault(self, where: str, task: Task) -> FaultRule | None:
        """Return the rule that hits something that concerns a task, or None."""
        return self.faults.pick(where, Subject(task.task_id, task.number, task.prompt))

    def clip(
        self,
        task: Task,
        *,
        aspect_ratio: str | None = None,
        duration_s: int | None = None,
        edition: int = 1,
    ) -> Clip:
        """Return a task's video; the options are for faults that serve something else."""
        ratio, length = aspect_ratio or task.aspect_ratio, duration_s or task.duration_s
        if self.config.clip == "tiny":
            clip = render("", "" if edition == 1 else f"edition {edition}", ratio, length)
        else:
            footer = f"#{task.number} {task.model} {task.mode} {length}s {ratio}"
            if edition != 1:
                footer += f" edition {edition}"
            clip = render(task.prompt, footer, ratio, length)
        size = self.config.video_bytes
        return clip if size is None else padded(clip, size)
