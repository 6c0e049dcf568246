"""What the API and the video server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batch.sandbox.config import SandboxConfig
from batch.sandbox.engine import Engine, Task
from batch.sandbox.faults import FaultInjector, FaultRule, Subject
from batch.sandbox.links import Links, task_object
from batch.sandbox.stats import Stats
from batch.sandbox.video.clips import Clip, padded, render


@dataclass(frozen=True, slots=True)
class World:
    """One sandbox's insides. *now* gives seconds since the epoch; nothing else reads a clock."""

    config: SandboxConfig
    now: Callable[[], float]
    engine: Engine
    faults: FaultInjector
    stats: Stats
    links: Links

    @classmethod
    def from_config(cls, config: SandboxConfig, now: Callable[[], float]) -> World:
        """Make an empty one."""
        return cls(
            config=config,
            now=now,
            engine=Engine(config),
            faults=FaultInjector(config.faults),
            stats=Stats(),
            links=Links(config.link_ttl_s),
        )

    def shown(self, task: Task, status: str) -> dict[str, object]:
        """Return a task as it is told, with a fresh link if there is a video."""
        url = self.links.sign(task, self.now()) if status == "succeed" else None
        return task_object(task, status, url)

    def fault(self, where: str, task: Task) -> FaultRule | None:
        """Roll the dice for something that concerns a task."""
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
