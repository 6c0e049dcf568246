"""A local imitation of Kling's text2video API as CometAPI serves it, over real HTTP.

For demonstrations, for tests, and for anybody who writes a client of this API:

    async with serve(SandboxConfig(speed=30)) as sandbox:
        ...  # POST f"{sandbox.base_url}/kling/v1/videos/text2video" with any bearer token

It imports nothing of the rest of the package, so that a misreading of the API by our client shows.
What it serves: creation with the documented limits and errors, queries by either id, the list,
callbacks, and real, playable videos that show their prompt, from another origin, behind signed
links. What goes wrong is asked for with a `FaultPlan`, or with `sandbox:policy`, `sandbox:unsafe`,
`sandbox:moderation`, `sandbox:generation`, `sandbox:empty-failure`, `sandbox:stuck` in a prompt.
`GET /sandbox/stats` tells what happened; `POST /sandbox/faults` replaces the plan.
"""

from __future__ import annotations

from batch.sandbox.clips import Clip
from batch.sandbox.config import SandboxConfig
from batch.sandbox.engine import Task
from batch.sandbox.faults import KINDS, FaultPlan, FaultPlanError, FaultRule
from batch.sandbox.server import Sandbox, main_async, serve
from batch.sandbox.stats import Stats

__all__ = [
    "KINDS",
    "Clip",
    "FaultPlan",
    "FaultPlanError",
    "FaultRule",
    "Sandbox",
    "SandboxConfig",
    "Stats",
    "Task",
    "main_async",
    "serve",
]
