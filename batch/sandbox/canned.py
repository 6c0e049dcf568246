"""The answers that a fault puts in place of the real one, by the name of the fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from batch.sandbox.shapes import (
    HTML,
    Answer,
    as_json,
    comet_error,
    kling_error,
    page,
    relay_error,
)

_FRONT_PAGE = '<!doctype html><html><head><title>CometAPI</title></head><body><div id="root"></div>'


@dataclass(frozen=True, slots=True)
class Canned:
    """An answer in waiting. *make* takes the message and the request id."""

    status: int
    message: str
    make: Callable[[str, str], Answer]

    def answer(self, request_id: str, message: str | None = None) -> Answer:
        """Return the answer, with another *message* where one is given."""
        return self.make(self.message if message is None else message, request_id)

    def describe(self) -> str:
        """Return status and message, for a table of faults."""
        return f"HTTP {self.status}: {self.message.removeprefix(str(self.status)).lstrip(' :')}"


def _kling(status: int, code: int, message: str) -> Canned:
    return Canned(status, message, partial(kling_error, status, code))


def _comet(status: int, code: str, message: str) -> Canned:
    return Canned(status, message, partial(comet_error, status, code))


def _relay(status: int, code: str, message: str) -> Canned:
    return Canned(status, message, lambda text, _: relay_error(status, code, text))


def _page(status: int, title: str) -> Canned:
    return Canned(status, title, lambda text, _: page(status, text))


def _fixed(what: str, answer: Answer) -> Canned:
    return Canned(answer.status, what, lambda _text, _id: answer)


def _in_200(code: int, message: str) -> Canned:
    return Canned(200, message, lambda text, _: as_json({"code": code, "msg": text, "data": None}))


def _nested_1303(message: str, request_id: str) -> Answer:
    upstream = {"code": 1303, "message": message, "request_id": request_id}
    return relay_error(429, "fail_to_fetch_task", json.dumps(upstream))


_RATE = _kling(429, 1302, "requests too frequent, please slow down")
_NO_AUTH = _kling(401, 1002, "Authorization is invalid")
_QUOTA = _comet(403, "insufficient_user_quota", "user quota is not enough")
_BAD_GATEWAY = _page(502, "502 Bad Gateway")
_PARALLEL = "parallel task over resource pack limit"

CANNED: dict[str, Canned] = {
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
    "1303": _kling(429, 1303, _PARALLEL),
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
    "405-html": _page(405, "405 Not Allowed"),
    "301": _fixed("to /login", Answer(301, b"", HTML, {"Location": "/login"})),
    "task_not_exist": _relay(400, "task_not_exist", "task_not_exist"),
    "new-api-1303": Canned(429, _PARALLEL, _nested_1303),
    "empty-2xx": _fixed("no body", Answer(200, b"")),
    "html-2xx": _fixed("a front page in HTML", Answer(200, _FRONT_PAGE.encode(), HTML)),
    # The code swallowed by a relay: only the words tell.
    "throttled-words": _relay(400, "task_failed", "Too many requests, please try again later"),
    "saturated-words": _relay(400, "task_failed", _PARALLEL),
    "403-rate-limit": _comet(403, "rate_limit_exceeded", "rate limit exceeded"),
    "credit-words": _comet(400, "invalid_request", "Your credit balance is too low"),
    "429-credit": _comet(429, "", "Exhausted balance"),
    # The refusal inside a 200.
    "200-401": _in_200(401, "You do not have access permissions"),
    "200-402": _in_200(402, "Please top up your account"),
    "200-403": _in_200(403, "This key may not use this model"),
    "200-422": _in_200(422, "The prompt is not valid"),
    "200-429": _in_200(429, "Your call frequency is too high. Please try again later."),
    "200-false": Canned(
        200,
        "user quota is not enough",
        lambda text, _: as_json({"success": False, "message": text}),
    ),
    "200-error": Canned(
        200,
        "Invalid API key provided",
        lambda text, _: as_json({"error": {"err_code": -10001, "message": text}}),
    ),
}
