"""The shapes that answers come in: five for success, the known ones for errors.

Pure: values in, bytes out. See `Answer`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
_GATEWAY_PAGE = (
    "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    "<hr><center>cloudflare</center>\r\n</body>\r\n</html>\r\n"
)
_APP_PAGE = '<!doctype html><html><head><title>CometAPI</title></head><body><div id="root"></div>'
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


def new_request_id() -> str:
    """Return a request id as the real ones look."""
    return str(uuid.uuid4())


def as_json(value: Any, status: int = 200) -> Answer:
    """Answer with JSON."""
    return Answer(status, json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def kling_error(status: int, code: int, message: str) -> Answer:
    """Answer as Kling does: an integer code, also under 429, and a request id."""
    return as_json({"code": code, "message": message, "request_id": new_request_id()}, status)


def comet_error(status: int, code: str, message: str) -> Answer:
    """Answer as CometAPI itself does: the request id is inside the message."""
    told = f"{message} (request id: {new_request_id()})"
    error = {"message": told, "type": "comet_api_error", "param": "", "code": code}
    return as_json({"error": error}, status)


def relay_error(status: int, code: str, message: str) -> Answer:
    """Answer as the new-api family of relays does: a text code and no data."""
    return as_json({"code": code, "message": message, "data": None}, status)


def refusal(status: int, code: int | str, message: str) -> Answer:
    """Answer a refused request: number codes are Kling's, text codes CometAPI's."""
    if isinstance(code, int):
        return kling_error(status, code, message)
    return comet_error(status, code, message)


def page(status: int, title: str) -> Answer:
    """Answer with a gateway's HTML page."""
    return Answer(status, _GATEWAY_PAGE.format(title=title).encode(), HTML)


def _nested_1303() -> Answer:
    upstream = {"code": 1303, "message": "parallel task over resource pack limit"}
    inner = json.dumps({**upstream, "request_id": new_request_id()})
    return relay_error(429, "fail_to_fetch_task", inner)


def _kling(status: int, code: int, message: str) -> Callable[[], Answer]:
    return lambda: kling_error(status, code, message)


def _comet(status: int, code: str, message: str) -> Callable[[], Answer]:
    return lambda: comet_error(status, code, message)


def _page(status: int, title: str) -> Callable[[], Answer]:
    return lambda: page(status, title)


_RATE = _kling(429, 1302, "requests too frequent, please slow down")
_NO_AUTH = _kling(401, 1002, "Authorization is invalid")
_QUOTA = _comet(403, "insufficient_user_quota", "user quota is not enough")
_BAD_GATEWAY = _page(502, "502 Bad Gateway")
_CANNED: dict[str, Callable[[], Answer]] = {
    "1000": _kling(401, 1000, "Authentication failed"),
    "1001": _kling(401, 1001, "Authorization is empty"),
    "1002": _NO_AUTH,
    "401": _NO_AUTH,
    "1003": _kling(401, 1003, "Authorization is not yet valid"),
    "1004": _kling(401, 1004, "Authorization has expired"),
    "1100": _kling(429, 1100, "Account exception"),
    "1101": _kling(429, 1101, "Account in arrears"),
    "1102": _kling(429, 1102, "Account balance not enough"),
    "1103": _kling(403, 1103, "No permission to access the requested resource"),
    "1200": _kling(400, 1200, "Invalid request parameters"),
    "1201": _kling(400, 1201, "Invalid parameter value"),
    "1203": _kling(404, 1203, "The requested resource does not exist"),
    "1300": _kling(400, 1300, "the request triggers the platform policy"),
    "1301": _kling(400, 1301, "the request triggers the content security policy"),
    "1302": _RATE,
    "429": _RATE,
    "1303": _kling(429, 1303, "parallel task over resource pack limit"),
    "1304": _kling(429, 1304, "the IP is not on the whitelist"),
    "5000": _kling(500, 5000, "Internal server error"),
    "5001": _kling(503, 5001, "Service is under maintenance"),
    "5002": _kling(504, 5002, "Internal timeout, backlog"),
    "500": _comet(500, "", "internal server error"),
    "500-invalid": _comet(500, "invalid_request", "model name is required"),
    "502": _BAD_GATEWAY,
    "502-html": _BAD_GATEWAY,
    "503": _comet(503, "", "service temporarily unavailable"),
    "504": _page(504, "504 Gateway Time-out"),
    "524": _page(524, "524: A timeout occurred"),
    "waf": _page(403, "Attention Required! | Cloudflare"),
    "quota": _QUOTA,
    "insufficient_user_quota": _QUOTA,
    "404": _kling(404, 1203, "task not found"),
    "404-html": _page(404, "404 Not Found"),
    "301": lambda: Answer(301, b"", HTML, {"Location": "/login"}),
    "task_not_exist": lambda: relay_error(400, "task_not_exist", "task_not_exist"),
    "new-api-1303": _nested_1303,
    "empty-2xx": lambda: Answer(200, b""),
    "html-2xx": lambda: Answer(200, _APP_PAGE.encode(), HTML),
}


def canned(kind: str) -> Answer | None:
    """Return the answer that a fault of that kind stands for, if it is one."""
    make = _CANNED.get(kind)
    return None if make is None else make()


def success(task: dict[str, Any], shape: int, *, has_numeric_ids: bool = False) -> Answer:
    """Wrap a task object as CometAPI has been seen to: shape 1 is the documented one.

    1. Kling's own envelope. 2. `message` is another word, no `request_id`. 3. The bare task.
    4. `data` without `code`. 5. The relay's wrapper: outer upper-case status, inner envelope.
    """
    if has_numeric_ids:
        task = {**task, "task_id": int(task["task_id"])}
    match shape:
        case 2:
            value: Any = {"code": 0, "message": "success", "data": task}
        case 3:
            value = task
        case 4:
            value = {"data": task}
        case 5:
            value = _relayed(task)
        case _:
            value = {"code": 0, "message": "SUCCEED", "request_id": new_request_id(), "data": task}
    return as_json(value)


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
