"""Signed, expiring links to videos, in the style of the real ones, and the task object around them."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from batch.sandbox.engine import Task, task_id_of_video
from batch.sandbox.video.clips import clip_duration_s

# An imitation has no secret to keep; a constant lets links outlive a restart.
_SIGNING_KEY = b"the sandbox signs its links so that a mangled one is noticed"
_PATH = re.compile(r"(?:/moved)?(/bs2/[^?]+/VIDEO/\d{8}/(\d+)-[0-9a-f]+\.mp4)")


class Links:
    """Makes links and checks them. The origins are known once the servers listen."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self.origin = self.api_origin = ""

    def sign(self, task: Task, moment: float, *, is_at_api: bool = False) -> str:
        """Return a link to a task's video that works for the configured time from now on."""
        day = time.strftime("%Y%m%d", time.gmtime(task.created_at))
        name = f"{task.video_id}-{hashlib.sha256(task.task_id.encode()).hexdigest()[:32]}.mp4"
        path = f"/bs2/upload-ylab-stunt-sgp/muse/{task.account}/VIDEO/{day}/{name}"
        expires = f"{math.ceil(moment + self._ttl_s):x}"
        cache_key = hashlib.sha256(name.encode()).hexdigest()[:40]
        secret = _signature(path, cache_key, expires)
        query = f"cacheKey={cache_key}&x-kcdn-pid=112781&ksSecret={secret}&ksTime={expires}"
        return f"{self.api_origin if is_at_api else self.origin}{path}?{query}"

    def check(self, path: str, query: Mapping[str, str], moment: float) -> str | None:
        """Return the task id of a link, or None if its signature is wrong or expired."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        expires = query.get("ksTime", "")
        expected = _signature(match[1], query.get("cacheKey", ""), expires)
        is_signed = hmac.compare_digest(expected.encode(), query.get("ksSecret", "").encode())
        if not is_signed or int(expires, 16) < moment:
            return None
        return task_id_of_video(match[2])


def is_video_path(path: str) -> bool:
    """Return whether a path is that of a video."""
    return path.removeprefix("/moved").startswith("/bs2/")


def _signature(path: str, cache_key: str, expires: str) -> str:
    signed = f"{path}\n{cache_key}\n{expires}".encode()
    return hmac.digest(_SIGNING_KEY, signed, "sha256").hex()[:32]


def task_object(
    task: Task, status: str, url: str | None, *, tells_external_id: bool = True
) -> dict[str, Any]:
    """Return a task as the API and its callbacks show it; *url* None leaves the result empty."""
    shown: dict[str, Any] = {
        "task_id": task.task_id,
        "task_status": status,
        "task_info": {},
        "created_at": round(task.created_at * 1000),
        "updated_at": round(task.updated_at(status) * 1000),
        "task_result": {},
    }
    if task.external_task_id is not None and tells_external_id:
        shown["task_info"] = {"external_task_id": task.external_task_id}
    if status == "failed":
        shown["task_status_msg"] = task.message
    elif status == "succeed":
        shown["task_status_msg"] = ""
        length = f"{clip_duration_s(task.duration_s):.2f}"
        if url is not None:
            shown["task_result"] = {
                "videos": [{"id": task.video_id, "url": url, "duration": length}]
            }
    return shown
