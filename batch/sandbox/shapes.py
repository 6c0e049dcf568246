"""The shapes that answers come in: five for success, three for errors, and pages. Values in, bytes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
_PAGE = (
    "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    "<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
_OUTER_STATUS = {
    "submitted": "SUBMITTED",
    "processing": "IN_PROGRESS",
    "succeed": "SUCCESS",
    "failed": "FAILURE",
}
_PROGRESS = {"submitted": "0%", "processing": "50%", "succeed": "100%", "failed": "100%"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, before it meets a connection."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dress:
    """How a task is wrapped: the shape (1 to 5), ids as numbers, and the place of the link."""

    shape: int = 1
    has_numeric_ids: bool = False
    link: str = ""


def as_json(value: Any, status: int = 200) -> Answer:
    """Answer with JSON."""
    return Answer(status, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def kling_error(status: int, code: int, message: str, request_id: str) -> Answer:
    """Answer as Kling does: an integer code, also under 429, and a request id."""
    return as_json({"code": code, "message": message, "request_id": request_id}, status)


def comet_error(status: int, code: str, message: str, request_id: str) -> Answer:
    """Answer as CometAPI itself does: the request id is inside the message."""
    told = f"{message} (request id: {request_id})"
    error = {"message": told, "type": "comet_api_error", "param": "", "code": code}
    return as_json({"error": error}, status)


def relay_error(status: int, code: str, message: str) -> Answer:
    """Answer as the new-api family of relays does: a text code and no data."""
    return as_json({"code": code, "message": message, "data": None}, status)


def refusal(status: int, code: int | str, message: str, request_id: str) -> Answer:
    """Answer a refused request: number codes are Kling's, text codes CometAPI's."""
    if isinstance(code, int):
        return kling_error(status, code, message, request_id)
    return comet_error(status, code, message, request_id)


def page(status: int, title: str) -> Answer:
    """Answer with a gateway's HTML page."""
    return Answer(status, _PAGE.format(title=title).encode(), HTML)


def success(task: dict[str, Any], request_id: str, dress: Dress | None = None) -> Answer:
    """Wrap a task object as CometAPI has been seen to: shape 1 is the documented one.

    1. Kling's own envelope. 2. `message` is another word, no `request_id`. 3. The bare task.
    4. `data` without `code`. 5. The relay's wrapper: outer upper-case status, inner envelope.
    """
    dress = dress or Dress()
    if dress.has_numeric_ids:
        task = {**task, "task_id": int(task["task_id"])}
    if dress.link in _ELSEWHERE and (videos := task.get("task_result", {}).get("videos")):
        return as_json(_ELSEWHERE[dress.link](task, videos[0]["url"]))
    match dress.shape:
        case 2:
            return as_json({"code": 0, "message": "success", "data": task})
        case 3:
            return as_json(task)
        case 4:
            return as_json({"data": task})
        case 5:
            return as_json(_relayed(task))
        case _:
            return as_json(_enveloped(task, request_id))


def _enveloped(task: dict[str, Any], request_id: str) -> dict[str, Any]:
    return {"code": 0, "message": "SUCCEED", "request_id": request_id, "data": task}


def _relayed(task: dict[str, Any]) -> dict[str, Any]:
    status = task["task_status"]
    videos = task.get("task_result", {}).get("videos") or [{}]
    is_over = status in ("succeed", "failed")
    outer = {
        "task_id": task["task_id"],
        "status": _OUTER_STATUS.get(status, "UNKNOWN"),
        "progress": _PROGRESS.get(status, ""),
        "fail_reason": task.get("task_status_msg", "") if status == "failed" else "",
        "result_url": videos[0].get("url", ""),
        "submit_time": task["created_at"] // 1000,
        "start_time": task["created_at"] // 1000,
        "finish_time": task["updated_at"] // 1000 if is_over else 0,
        "data": {"code": 0, "message": "SUCCEED", "data": task},
    }
    return {"code": "success", "message": "", "data": outer}


# -- links in other places than `task_result.videos[0].url` --------------------------------------


def _with_result(result: dict[str, Any]) -> Callable[[dict[str, Any], str], dict[str, Any]]:
    """Return a maker of Kling's envelope around that result, `LINK` standing for the link."""

    def make(task: dict[str, Any], url: str) -> dict[str, Any]:
        filled = json.loads(json.dumps(result).replace("LINK", url))
        return _enveloped({**task, "task_result": filled}, "")

    return make


def _in_fail_reason(task: dict[str, Any], url: str) -> dict[str, Any]:
    wrapped = _relayed({**task, "task_result": {}})
    del wrapped["data"]["data"]
    wrapped["data"]["fail_reason"] = url
    return wrapped


def _as_video(task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": task["task_id"], "object": "video", "status": "completed", **fields}


def _in_data(task: dict[str, Any], url: str) -> dict[str, Any]:
    data = {"task_id": task["task_id"], "status": "succeeded", "url": url, "error": None}
    return {"code": "success", "data": data}


_ELSEWHERE: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "fail_reason": _in_fail_reason,
    "url": lambda task, url: _as_video(task, url=url),
    "video_url": lambda task, url: _as_video(task, video_url=url),
    "metadata.url": lambda task, url: _as_video(task, metadata={"url": url}),
    "data.url": _in_data,
    "task_result.url": _with_result({"url": "LINK"}),
    "task_result.video_url": _with_result({"video_url": "LINK"}),
    "watermark_url": _with_result({"videos": [{"url": "", "watermark_url": "LINK"}]}),
    "videos": _with_result({"videos": ["LINK"]}),
}
OWN_ORIGIN = "own-origin"
LINK_PLACES = (*_ELSEWHERE, OWN_ORIGIN)
