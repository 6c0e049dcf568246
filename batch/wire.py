"""The provider's HTTP contract without I/O: status, headers and bytes in, values out.

Five shapes of success and six of error reach us (Kling's own, CometAPI's, new-api's wrapper, a bare
task, a task in `data`, JSON inside a message, HTML, text, nothing). `_normalise` is the one place
that knows them; `read_submit`, `read_query` and `read_callback` judge what it returns.

Two rules decide what an answer to a POST means:

- A task id, in any shape, is a task: somebody has paid. Everything else it says comes second.
- Only what is *known* to have created nothing may be sent again. What says nothing is `Ambiguous`.

The code in the body counts, not the HTTP status alone (a 429 may be an empty account, a 200 may be
a refusal), and a message is read only where there is no code. Nothing in here raises on bad input.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, StrEnum, auto
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from batch.job import Failure, FailureKind

T = TypeVar("T")

SUBMIT_PATH = "/kling/v1/videos/text2video"

MAX_MESSAGE = 300  # characters of a foreign message that are ever shown
MAX_RETRY_AFTER_S = 86_400.0
_MAX_READ = 16_384  # characters of a foreign message that are looked at
_MAX_ID = 128  # characters; Kling's ids have 18 or 19 digits
_MAX_URL = 8_192  # characters
_MAX_DATA = 4  # root → data → data.data → data.data.data
_MAX_LAYERS = 16  # objects of one answer that are looked at
_MAX_INT = 40  # digits; a longer number stays text
_MILLISECONDS_FROM = 1e11  # an epoch beyond this (the year 5138) is in milliseconds


def task_path(identifier: str) -> str:
    """Return the path that asks for one task, by its task id or its external id.

    Already percent-quoted: hand it to the HTTP library as it is.
    """
    return f"{SUBMIT_PATH}/{quote(identifier, safe='', errors='replace')}"


# -- what an answer can be -------------------------------------------------------------------


class TaskStatus(StrEnum):
    """Where a task stands. What we do not know is `UNKNOWN`, and is asked for again."""

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the provider tells it, whatever the envelope.

    *url* is signed and therefore a secret; *message* is the reason of a failure, cleaned; the two
    times are seconds since the epoch, and their difference at the end is the generation time.
    """

    task_id: str
    status: TaskStatus
    url: str | None = field(default=None, repr=False)
    message: str = ""
    video_duration_s: float | None = None
    external_task_id: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """There is a task, and it is ours. It may have failed already."""

    task: Task


@dataclass(frozen=True, slots=True)
class Exists:
    """This external id was used before: the task was created earlier. Look it up."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Throttled:
    """Too fast. Surely not created; again later, same id."""

    failure: Failure
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Saturated:
    """All slots are taken (1303). Surely not created; again when one is free, same id."""

    failure: Failure
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """This one request is refused, for ever: `invalid_request` or `moderation`."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class AccountRefused:
    """The whole account is refused (key, credit, permission, base URL). Surely not created."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Nobody knows whether there is a task now."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Found:
    """The task as it stands."""

    task: Task


@dataclass(frozen=True, slots=True)
class NotFound:
    """The API, not a proxy, says that it has no such task (yet)."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No usable answer to a question that may be asked again for nothing."""

    failure: Failure
    retry_after_s: float | None = None


SubmitAnswer = Created | Exists | Throttled | Saturated | Refused | AccountRefused | Ambiguous
QueryAnswer = Found | NotFound | Unavailable | AccountRefused


# -- foreign text ----------------------------------------------------------------------------

# Joiners belong to emoji and to Persian; every other format character can only disguise a text.
_JOINERS = "\u200c\u200d"
_URL_SECRETS = re.compile(
    r"(?i)\b(https?://)(?:[^\s/?#@\"'<>]*@)?([^\s?#\"'<>]*)([?#][^\s\"'<>]*)?"
)
# The query of a link that lost its head, or that is quoted inside another.
_QUERY = re.compile(r"(?i)(?:[?&]|%3f|%26)[\w.~%\-\[\]]+(?:=|%3d)\S*")
_KEY = re.compile(r"(?i)(?<![a-z0-9])sk-[\w-]{6,}|\beyj[\w-]+\.[\w-]+\.[\w-]*|\bbearer\s+[^\s…]+")


def clean(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make a foreign text fit to be shown: one line, bounded, no secrets, no control codes.

    Control codes, bidi overrides and line ends become spaces; the queries of links, user names in
    links, `sk-…` keys and bearer tokens are masked; what is longer than *limit* characters is cut.
    """
    head = text[: max(_MAX_READ, limit)]
    plain = "".join(c if c.isprintable() or c in _JOINERS else " " for c in head)
    line = " ".join(plain.split())
    line = _URL_SECRETS.sub(lambda m: m[1] + m[2] + ("?…" if m[3] else ""), line)
    line = _KEY.sub(_mask_key, _QUERY.sub("?…", line))
    return line if len(line) <= limit else line[: max(limit - 1, 0)] + "…"[:limit]


def _mask_key(match: re.Match[str]) -> str:
    word = match[0].lower()
    return "Bearer …" if word.startswith("bearer") else "sk-…" if word.startswith("sk-") else "…"


def redact_url(url: str) -> str:
    """Return *url* without user, query and fragment: what may be logged of a signed link."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable URL)"
    host = parts.netloc.rpartition("@")[2]
    return clean(urlunsplit((parts.scheme, host, parts.path, "", "")), limit=1_000)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Read a Retry-After header: seconds from *now* (epoch seconds), or None if it says nothing.

    Both forms of RFC 9110 (10.2.3), and fractions. Never negative, never more than a day.
    """
    text = (value or "").strip()[:64]
    if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", text):
        delay = float(text)
    else:
        try:
            moment = parsedate_to_datetime(text)
            delay = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, OverflowError, LookupError):
            return None
    return min(max(delay, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(delay) else None


# -- shapes in, one reading out --------------------------------------------------------------


class _Body(StrEnum):
    """What came, in the words of a message to the person."""

    JSON = "without a task id"
    HTML = "with a page of HTML instead of JSON"
    EMPTY = "with an empty body"
    OTHER = "with a body that is no JSON object"


@dataclass(frozen=True, slots=True)
class _Reading:
    """An answer, whatever its shape.

    *code* is the one that decides (lower case; None where there is none, or one that says "ok"),
    *has_error* whether the body itself, in JSON, speaks of an error; *has_task_id* whether the task is
    named by that key, and not just by an `id`, which may be an error's own.
    """

    body: _Body
    task: Task | None = None
    code: str | None = None
    message: str = ""
    request_id: str | None = None
    has_error: bool = False
    has_status: bool = False
    has_task_id: bool = False


def _normalise(body: bytes, headers: Mapping[str, str]) -> _Reading:
    """Read any of the shapes (API sheet, sections 2 and 4)."""
    text = body.decode("utf-8-sig", errors="replace").strip()
    root = _as_dict(_parse(text))
    header_id = _header(headers, "x-request-id") or _header(headers, "x-oneapi-request-id")
    if root is None:
        kind = _Body.EMPTY if not text else _Body.HTML if text.startswith("<") else _Body.OTHER
        return _Reading(kind, request_id=_request_id([], "", header_id))
    tasks, layers = _unfold(root)
    raw = _said(layers)
    code = _code(layers)
    request_id = _request_id(layers, raw, header_id)
    has_ok = any(_code_text(layer.get("code")) in _OK for layer in layers)
    return _Reading(
        _Body.JSON,
        task=_read_task(tasks, layers, request_id),
        code=code,
        message=clean(_REQUEST_ID.sub("", raw), limit=2_000),
        request_id=request_id,
        has_error=code is not None or bool(root.get("error")) or (bool(raw) and not has_ok),
        has_status=any(_status_word(layer) is not None for layer in tasks),
        has_task_id=_find(tasks, _identifier, "task_id") is not None,
    )


def _parse(text: str) -> Any:
    """Parse JSON; None if it is none, or a bomb."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | str:
    # Ids beyond 2**53 must not lose a digit, and int() refuses thousands of them.
    return int(digits) if len(digits) <= _MAX_INT else digits


# Lenient (strict=False) about line ends inside strings: the task id beside them is worth money.
_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=lambda _: None, strict=False)


def _as_dict(value: Any) -> dict[str, Any] | None:
    """Return an object that may be wrapped in a list of one, or written into a text."""
    if isinstance(value, str):
        start = value.find("{")
        try:
            value = _DECODER.raw_decode(value, start)[0] if start >= 0 else None
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, dict) else None


def _as_error(value: Any) -> dict[str, Any] | None:
    """Return an error that is an object, or is written into a text; other braces are just text."""
    found = _as_dict(value)
    return found if found is not None and found.keys() & {"code", "message", "error"} else None


def _unfold(root: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the layers that may hold the task, and all that may hold an error; outermost first.

    A task inside an *error's* text is the upstream's, under an id that means nothing here.
    """
    tasks = [root]
    while len(tasks) < _MAX_DATA and (inner := _as_dict(tasks[-1].get("data"))) is not None:
        tasks.append(inner)
    layers: list[dict[str, Any]] = []
    queue = deque(tasks)
    while queue and len(layers) < _MAX_LAYERS:
        layer = queue.popleft()
        layers.append(layer)
        nested = (_as_error(layer.get(key)) for key in ("error", "message"))
        queue.extend(found for found in nested if found is not None)
    return tasks, layers


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _find(
    layers: Iterable[dict[str, Any]], read: Callable[[Any], T | None], *keys: str
) -> T | None:
    """Return the first readable value of any of *keys*, outermost layer first."""
    return _first(read(layer.get(key)) for layer in layers for key in keys)


_OK = {"0", "200", "ok", "success", "succeed", "succeeded"}
_REQUEST_ID = re.compile(r"(?i)\s*\(request[ _]id:\s*([^\s)]{1,128})\s*\)")


def _code_text(value: Any) -> str | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return clean(str(value), limit=64).lower() or None


def _code(layers: list[dict[str, Any]]) -> str | None:
    """Pick the code that decides: Kling's number wherever it hides, then a word that we know."""
    found = (_code_text(layer.get("code")) for layer in layers)
    codes = [code for code in found if code is not None and code not in _OK]
    known = [code for code in codes if code in _VERDICTS]
    return next((code for code in known if code.isdigit()), _first([*known, *codes]))


def _said(layers: list[dict[str, Any]]) -> str:
    """Return what the answer says for people, unless that is just "SUCCEED"."""
    return _find(layers, _sentence, "message", "msg", "detail", "error") or ""


def _sentence(value: Any) -> str | None:
    if not isinstance(value, str) or value.strip().lower() in {"", *_OK}:
        return None
    return None if _as_error(value) is not None else value


def _header(headers: Mapping[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _request_id(layers: list[dict[str, Any]], said: str, header: str | None) -> str | None:
    inside = _REQUEST_ID.search(said)
    found = (_find(layers, _identifier, "request_id"), inside and inside[1], header)
    return _first(_identifier(value) for value in found)


# -- a task ----------------------------------------------------------------------------------

_STATUSES = {
    **dict.fromkeys(("submitted", "queued", "pending", "not_start"), TaskStatus.SUBMITTED),
    **dict.fromkeys(("processing", "in_progress", "running"), TaskStatus.PROCESSING),
    **dict.fromkeys(("succeed", "succeeded", "success"), TaskStatus.SUCCEEDED),
    **dict.fromkeys(("completed", "done"), TaskStatus.SUCCEEDED),
    **dict.fromkeys(("failed", "failure", "fail", "error"), TaskStatus.FAILED),
    **dict.fromkeys(("canceled", "cancelled"), TaskStatus.FAILED),
}
# How languages write "nothing" where an id should be.
_NO_IDS = {"0", ".", "..", "null", "none", "nil", "<nil>", "undefined"}


def _read_task(
    tasks: list[dict[str, Any]], layers: list[dict[str, Any]], request_id: str | None
) -> Task | None:
    # `id` alone may be anything's; beside a status it is the task of the newer API.
    beside_status = [layer for layer in tasks if _status_word(layer) is not None]
    task_id = _find(tasks, _identifier, "task_id") or _find(beside_status, _identifier, "id")
    if task_id is None:
        return None
    videos = [video for layer in tasks for video in _videos(layer)]
    url = _find(videos, _web_url, "url") or _find(tasks, _web_url, "result_url")
    infos = [info for layer in tasks if (info := _as_dict(layer.get("task_info"))) is not None]
    reason = _find(tasks, _sentence, "task_status_msg") or _find(tasks, _sentence, "fail_reason")
    return Task(
        task_id=task_id,
        status=_status(tasks, has_url=url is not None),
        url=url,
        message=clean(_REQUEST_ID.sub("", reason or _said(layers))),
        video_duration_s=_find(videos, _positive, "duration"),
        external_task_id=_find([*infos, *tasks], _identifier, "external_task_id"),
        created_at=_find(tasks, _epoch, "created_at", "create_time", "submit_time"),
        updated_at=_find(tasks, _epoch, "updated_at", "update_time", "finish_time"),
        request_id=request_id,
    )


def _identifier(value: Any) -> str | None:
    """Return an id as text, or None if it is none. A float has lost its digits already."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if value > 0 else None
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_ID or value.lower() in _NO_IDS:
        return None
    has_bad = any(char in "/\\\ufffd" or char.isspace() for char in value)
    return value if value.isprintable() and not has_bad else None


def _status_word(layer: dict[str, Any]) -> str | None:
    words = (layer.get("task_status"), layer.get("status"))
    return next((word for word in words if isinstance(word, str) and word.strip()), None)


def _status(tasks: list[dict[str, Any]], *, has_url: bool) -> TaskStatus:
    """Read the outermost status that we know.

    A "success" without a link gives way to what a deeper layer says: it may have been that of the
    request, and new-api has called failed tasks successful.
    """
    words = (_status_word(layer) for layer in tasks)
    read = (_STATUSES.get(re.sub(r"[\s-]+", "_", word.strip().lower())) for word in words if word)
    known = [status for status in read if status is not None]
    if known and known[0] is TaskStatus.SUCCEEDED and not has_url:
        known.sort(key=lambda status: status is TaskStatus.SUCCEEDED)
    return known[0] if known else TaskStatus.UNKNOWN


def _videos(layer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    result = _as_dict(layer.get("task_result")) or {}
    for videos in (result.get("videos"), layer.get("outputs")):
        yield from (video for video in _as_list(videos) if isinstance(video, dict))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _web_url(value: Any) -> str | None:
    """Return a link as it was given (its signature covers every character), or None."""
    if not isinstance(value, str) or len(value) > _MAX_URL:
        return None
    url = value.strip()
    if not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
        _ = parts.port  # raises if there is one that is none
    except ValueError:
        return None
    return url if is_web else None


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number > 0 else None


def _epoch(value: Any) -> float | None:
    number = _positive(value)
    if number is None:
        return None
    seconds = number / 1_000 if number >= _MILLISECONDS_FROM else number
    return seconds if seconds < _MILLISECONDS_FROM else None


# -- what it means ---------------------------------------------------------------------------


class _Verdict(Enum):
    ACCOUNT = auto()
    SATURATED = auto()
    THROTTLED = auto()
    EXISTS = auto()
    INVALID = auto()
    MODERATION = auto()
    AMBIGUOUS = auto()


# Kling's numbers (API sheet, 4a) and the words of CometAPI and new-api (4b, 4c).
_VERDICTS: dict[str, _Verdict] = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), _Verdict.ACCOUNT),
    **dict.fromkeys(("1100", "1101", "1102", "1103", "1304"), _Verdict.ACCOUNT),
    **dict.fromkeys(("insufficient_user_quota", "insufficient_quota"), _Verdict.ACCOUNT),
    **dict.fromkeys(("pre_consume_token_quota_failed", "invalid_api_key"), _Verdict.ACCOUNT),
    "1302": _Verdict.THROTTLED,
    "1303": _Verdict.SATURATED,
    **dict.fromkeys(("1200", "1201", "1202", "1203"), _Verdict.INVALID),
    **dict.fromkeys(("invalid_request", "model_not_found", "model_price_error"), _Verdict.INVALID),
    **dict.fromkeys(("1300", "1301", "sensitive_words_detected"), _Verdict.MODERATION),
    **dict.fromkeys(("5000", "5001", "5002"), _Verdict.AMBIGUOUS),
    # The gateway has sent the request on, and lost the answer.
    **dict.fromkeys(("do_request_failed", "read_response_body_failed"), _Verdict.AMBIGUOUS),
    "unmarshal_response_failed": _Verdict.AMBIGUOUS,
}
_AUTH_CODES = {"1000", "1001", "1002", "1003", "1004", "invalid_api_key"}
_REFUSED_5XX = {(500, "invalid_request"), (503, "model_not_found")}
_ACCOUNT_STATUSES = {401, 402, 403, 407}
_MISSING_CODES = {"1203", "task_not_exist", "task_not_found"}

_CREDIT = re.compile(
    r"(?i)insufficient.{0,24}(quota|balance|credit|fund)|exceeded your current quota|in arrears"
    r"|(quota|balance|credits?)\b.{0,24}(not enough|insufficient|exhausted|depleted|used up)"
    r"|resource pack.{0,12}(depleted|exhausted|expired)|余额不足|额度不足|额度已用尽"
)
_PARALLEL = re.compile(r"(?i)parallel task|concurren")
_ROUTE = re.compile(r"(?i)invalid url|unsupported relay mode|no route|cannot (post|get)\b")
_SAFETY = re.compile(
    r"(?i)risk control|content (security|policy)|sensitive (word|content|information)"
    r"|moderation|platform policy|敏感|风控|违规"
)
_TAKEN = re.compile(
    r"(?i)duplicat|already (exist|been used|used)|\bexists\b|\bunique\b|已存在|重复"
)
_EXTERNAL = re.compile(r"(?i)external[ _]?task[ _]?id")


def read_submit(
    status: int, headers: Mapping[str, str], body: bytes, *, resent: bool, now: float
) -> SubmitAnswer:
    """Say what an answer to a POST means (the table of the job's life).

    *resent* tells that this very external id may have been sent before: then a 1201, which stands
    for a bad value and for an id that exists, is the latter. *now* is the epoch time in seconds.
    """
    reading = _normalise(body, headers)
    # `id` beside a status is enough for a task only where the answer claims success.
    if reading.task is not None and (200 <= status < 300 or reading.has_task_id):
        return Created(reading.task)
    retry_after_s = parse_retry_after(_header(headers, "retry-after"), now)
    verdict = _by_code(status, reading, resent=resent) or _by_status(status, reading)
    failure = _failure(_KINDS[verdict], status, reading)
    if verdict is _Verdict.THROTTLED:
        return Throttled(failure, retry_after_s)
    if verdict is _Verdict.SATURATED:
        return Saturated(failure, retry_after_s)
    return _PLAIN_ANSWERS[verdict](failure)


_KINDS = {
    _Verdict.ACCOUNT: FailureKind.ACCOUNT,
    _Verdict.SATURATED: FailureKind.RATE_LIMITED,
    _Verdict.THROTTLED: FailureKind.RATE_LIMITED,
    _Verdict.EXISTS: FailureKind.UNCONFIRMED,
    _Verdict.INVALID: FailureKind.INVALID_REQUEST,
    _Verdict.MODERATION: FailureKind.MODERATION,
    _Verdict.AMBIGUOUS: FailureKind.PROVIDER,
}
_PLAIN_ANSWERS: dict[_Verdict, Callable[[Failure], SubmitAnswer]] = {
    _Verdict.ACCOUNT: AccountRefused,
    _Verdict.EXISTS: Exists,
    _Verdict.INVALID: Refused,
    _Verdict.MODERATION: Refused,
    _Verdict.AMBIGUOUS: Ambiguous,
}


def _by_code(status: int, reading: _Reading, *, resent: bool) -> _Verdict | None:
    """Judge by what the body says, as far as that settles it."""
    verdict = _VERDICTS.get(reading.code or "")
    if 300 <= status < 400:
        return _Verdict.ACCOUNT
    if status >= 500:
        # A 5xx says nothing, unless the body names a cause that comes before any task.
        has_cause = verdict in {_Verdict.ACCOUNT, _Verdict.SATURATED}
        is_settled = has_cause or (status, reading.code) in _REFUSED_5XX
        return verdict if is_settled else _Verdict.AMBIGUOUS
    if reading.has_error and _says_exists(reading, resent=resent):
        return _Verdict.EXISTS
    if status in _ACCOUNT_STATUSES and verdict is _Verdict.INVALID:
        return _Verdict.ACCOUNT  # the gateway calls a bad key "invalid_request" too
    return verdict


def _says_exists(reading: _Reading, *, resent: bool) -> bool:
    is_1201 = reading.code == "1201"
    if is_1201 and resent:
        return True
    names_id = is_1201 or _EXTERNAL.search(reading.message) is not None
    is_taken = _TAKEN.search(reading.message) is not None
    return names_id and is_taken and "not exist" not in reading.message.lower()


def _by_status(status: int, reading: _Reading) -> _Verdict:
    """Judge an answer below 500 whose code is absent or unknown."""
    if status in _ACCOUNT_STATUSES:
        return _Verdict.ACCOUNT  # a firewall's page too: it refuses before anything is created
    if status == 429:
        return _by_words(reading, otherwise=_Verdict.THROTTLED)
    is_refusal = reading.has_error and 400 <= status < 500 and status not in {408, 425}
    if is_refusal or status in {413, 422}:
        return _by_words(reading, otherwise=_Verdict.INVALID)
    return _Verdict.AMBIGUOUS


def _by_words(reading: _Reading, *, otherwise: _Verdict) -> _Verdict:
    if _CREDIT.search(reading.message) or _ROUTE.search(reading.message):
        return _Verdict.ACCOUNT
    if otherwise is _Verdict.THROTTLED:
        return _Verdict.SATURATED if _PARALLEL.search(reading.message) else otherwise
    return _Verdict.MODERATION if _SAFETY.search(reading.message) else otherwise


def read_query(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> QueryAnswer:
    """Say what an answer to a GET means. *now* is the epoch time in seconds.

    The caller compares the ids: a provider may answer with another task than the one asked for.
    """
    reading = _normalise(body, headers)
    # An error may echo the id that was asked for; that is no task yet.
    is_task = 200 <= status < 300 and (reading.has_status or reading.code is None)
    if is_task and reading.task is not None:
        return Found(reading.task)
    if _is_locked_out(status, reading):
        return AccountRefused(_failure(FailureKind.ACCOUNT, status, reading))
    if _is_missing(status, reading):
        return NotFound(_failure(FailureKind.PROVIDER, status, reading))
    kind = FailureKind.RATE_LIMITED if status == 429 else FailureKind.PROVIDER
    retry_after_s = parse_retry_after(_header(headers, "retry-after"), now)
    return Unavailable(_failure(kind, status, reading), retry_after_s)


def _is_missing(status: int, reading: _Reading) -> bool:
    """Tell whether the API itself says so; a proxy's 404 and a wrong path prove nothing."""
    if status >= 500 or status == 429 or _ROUTE.search(reading.message):
        return False
    return reading.code in _MISSING_CODES or (status == 404 and reading.has_error)


def _is_locked_out(status: int, reading: _Reading) -> bool:
    """Tell whether the key itself is refused. Looking costs nothing, so credit does not matter."""
    if status >= 500 or status == 429:
        return False
    if status == 401 or reading.code in _AUTH_CODES:
        return True
    code = _VERDICTS.get(reading.code or "")
    is_credit = code is _Verdict.ACCOUNT and reading.code != "1103"
    is_credit = is_credit or _CREDIT.search(reading.message) is not None
    return status == 403 and reading.has_error and not is_credit


def read_callback(body: bytes) -> Task | None:
    """Read a callback: a bare task, one in an envelope, or the newer API's. None if it is none.

    Nothing in it is proved; it is a hint to ask for that task.
    """
    reading = _normalise(body, {})
    return reading.task if reading.has_status else None


def task_failure(task: Task) -> Failure:
    """Say whose the failure of a failed task is: the moderation's, or the generation's."""
    is_safety = _SAFETY.search(task.message) is not None
    kind = FailureKind.MODERATION if is_safety else FailureKind.GENERATION
    message = task.message or "The provider gave no reason."
    return Failure(kind, message, http_status=200, request_id=task.request_id)


def _failure(kind: FailureKind, status: int, reading: _Reading) -> Failure:
    message = clean(reading.message) or f"HTTP {status} {reading.body.value}"
    if 300 <= status < 400:
        message = f"HTTP {status}: the server redirects; check the base URL"
    return Failure(kind, message, reading.code, status, reading.request_id)
