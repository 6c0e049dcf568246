"""A local imitation of Kling's text2video API as CometAPI serves it, over real HTTP.

For demonstrations, for tests, and for every author of a client of this API:

    async with serve(SandboxConfig(speed=30)) as sandbox:
        ...  # POST f"{sandbox.base_url}/kling/v1/videos/text2video" with any bearer token

It shares no code with the client, so that a misreading of the API by the client shows. Its parts:

- `api` answers a request in memory: creation with the documented limits and errors, queries by
  either id, and the list.
- `control` serves the pages under `/sandbox/`: statistics, faults, the end of a task, a reset.
- `edge` puts aiohttp around it, with the faults that are in the line and not in the answer.
- `engine` holds the tasks. The status of a task is a function of its record and the moment, so
  nothing runs in the background, and the journal of records is all that a restart needs.
- `cdn` serves the videos from a second origin, behind the signed links of `links`; `video` draws them.
- `log` writes a line for each request.
- `callbacks` POSTs each change of status to the `callback_url` of the task.
- `kinds` names the faults, `faults` reads the rules (`query:500:0.3`), `dice` decides which
  rule hits which request. A word in a prompt does the same for one task (`sandbox:moderation`).

`World` holds the shared state: configuration, clock, engine, faults, statistics and links. The
public face is `serve` and `SandboxConfig`; the `Sandbox` that `serve` yields reports the rest.
"""

from __future__ import annotations

from batch.sandbox.config import SandboxConfig
from batch.sandbox.control import PAGES
from batch.sandbox.engine import Task
from batch.sandbox.faults import FaultPlan, FaultPlanError, FaultRule, suffixes
from batch.sandbox.kinds import KINDS
from batch.sandbox.log import Logged
from batch.sandbox.server import Sandbox, serve
from batch.sandbox.stats import Stats
from batch.sandbox.video.clips import Clip

__all__ = [
    "KINDS",
    "PAGES",
    "Clip",
    "FaultPlan",
    "FaultPlanError",
    "FaultRule",
    "Logged",
    "Sandbox",
    "SandboxConfig",
    "Stats",
    "Task",
    "serve",
    "suffixes",
]
