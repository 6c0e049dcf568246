"""The configuration of a sandbox."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from batch.sandbox.faults import FaultPlan

THIRTY_DAYS_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """The choices about a sandbox. All times are in seconds.

    Attributes:
        host: the address that both servers listen on.
        port: of the API; 0 takes a free one.
        cdn_port: of the videos, another origin than the API; 0 takes a free one.
        speed: generation runs so many times faster than the real thing.
        median_s: median time of generation of a standard 5 s clip, before `speed`.
        sigma: spread of the lognormal distribution around it.
        seed: makes generation times repeatable.
        api_key: the only key accepted; None accepts any that is not empty.
        max_parallel: tasks in flight per account; more are refused with 1303. None: no cap.
        journal: created tasks are kept here and brought back at the next start.
        faults: the fault plan.
        invisible_s: how long a fresh task is not found by queries.
        lookup: whether a GET by external_task_id is served.
        list_tasks: whether the list is served.
        unique_external_ids: whether a second use of an external_task_id is refused, as documented.
        checks_duplicates_first: whether that comes before credit and slots, or after them.
        tells_external_id: whether an answer names the external_task_id.
        other_keys: whether a key finds tasks of another key: nothing, those it asks for by task id,
            or everything.
        has_credit: without it submissions are refused with 1102.
        not_found: the answer about an unknown task: Kling's, or that of the new-api relays.
        latency_s: how long every answer of the API takes.
        max_prompt_chars: longer prompts are refused with 1201.
        max_negative_prompt_chars: likewise.
        link_ttl_s: how long a signed link works; every query signs a fresh one.
        kept_s: how long a task and its video are kept.
        clip: `prompt` shows each its own; `tiny` shares one small body per ratio and length.
        video_bytes: pads every video to this size.
    """

    host: str = "127.0.0.1"
    port: int = 0
    cdn_port: int = 0
    speed: float = 1.0
    median_s: float = 60.0
    sigma: float = 0.25
    seed: int | None = None
    api_key: str | None = field(default=None, repr=False)
    max_parallel: int | None = None
    journal: Path | None = None
    faults: FaultPlan = field(default_factory=FaultPlan)
    invisible_s: float = 0.0
    lookup: bool = True
    list_tasks: bool = True
    unique_external_ids: bool = True
    checks_duplicates_first: bool = True
    tells_external_id: bool = True
    other_keys: Literal["nothing", "task-ids", "everything"] = "nothing"
    has_credit: bool = True
    not_found: Literal["kling", "new-api"] = "kling"
    latency_s: float = 0.0
    max_prompt_chars: int = 2500
    max_negative_prompt_chars: int = 2500
    link_ttl_s: float = THIRTY_DAYS_S
    kept_s: float = THIRTY_DAYS_S
    clip: Literal["prompt", "tiny"] = "prompt"
    video_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that would divide by zero, never end, or mean nothing."""
        if not 0 < self.speed < math.inf:
            raise ValueError(f"speed must be a number above 0, not {self.speed}")
        for name in ("median_s", "sigma", "invisible_s", "latency_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 on, not {getattr(self, name)}")
        for name in ("max_parallel", "video_bytes"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be a number from 0 on, not {getattr(self, name)}")
