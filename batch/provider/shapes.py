"""Every shape in which an answer comes, made one `Reading`.

Tasks come in Kling's own envelope, in new-api's, bare or in `data`; errors also as CometAPI's, as JSON
inside a message, as HTML, text or nothing. Only this module knows the shapes; `batch.provider.wire`
judges what an answer means.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from batch.provider.answers import Task, TaskStatus
from batch.provider.codes import GENERIC_CODES, OK_WORDS, VERDICTS, code_text, deciding
from batch.provider.fields import (
    as_dict,
    as_error,
    epoch,
    find,
    flat,
    header,
    identifier,
    parse,
)
from batch.provider.links import only_url, other_link, own_link
from batch.provider.tasks import (
    REQUEST_WORDS,
    doubt,
    envelopes,
    has_status,
    likely_id,
    may_have_succeeded,
    pick,
    spelled,
    status_of,
    status_words,
)
from batch.provider.words import plain
from batch.redact import clean

_MAX_LAYERS = 16  # objects of one answer that are read
_REFUSED = re.compile("[45][0-9][0-9]")
_MAX_SAID = 2_000  # characters of a message that are searched
_MAX_HEARD = 4_000  # characters of all messages that are read


class Body(StrEnum):
    """What came, in the words of a message to the user."""

    JSON = "without a task id"
    HTML = "with a page of HTML instead of JSON"
    EMPTY = "with an empty body"
    OTHER = "with a body that is no JSON object"


class Reading(NamedTuple):
    """An answer, whatever its shape.

    *code* is the one that decides (lower case; None where there is none, or one that says "ok"),
    *message* the sentence for people, *words* all that is said of an error, as `words.plain` writes
    it; *status* the HTTP status of a refusal that the body itself gives as its code. *has_error*:
    the body itself, in JSON, speaks of an error; *has_status*: it says how the task stands;
    *has_task_id*: the task is named by that key, and not just by an `id`, which may be an error's.
    """

    body: Body
    task: Task | None = None
    code: str | None = None
    message: str = ""
    words: str = ""
    status: int | None = None
    request_id: str | None = None
    has_error: bool = False
    is_refusal: bool = False  # nothing in it claims success, or may be the id of a task
    has_status: bool = False
    has_task_id: bool = False
    likely_id: str | None = None  # where no task is named, and no error


def read_answer(body: bytes, headers: Mapping[str, str], asked: str | None = None) -> Reading:
    """Read any of the shapes (API sheet, sections 2 and 4). Never raises.

    *asked* is the id of the task that is meant, where there may be several.
    """
    text = body.decode("utf-8", errors="replace").removeprefix("\ufeff").strip()
    value = parse(text)
    root = as_dict(value if asked is None else pick(value, asked))
    if root is not None:
        return _read_object(root, headers)
    kind = Body.EMPTY if not text else Body.HTML if text.startswith("<") else Body.OTHER
    # A task is worth money, whatever a relay has written around it: an event stream, a comment.
    inside = as_dict(text) if kind is Body.OTHER else None
    reading = None if inside is None else _read_object(inside, headers)
    if reading is not None and reading.task is not None:
        return reading
    return Reading(kind, request_id=_header_id(headers))


# Where an answer says what went wrong; keys as `flat` writes them.
_CODES = ("code", "errorcode", "errcode")
_STATUS_CODES = (*_CODES, "status", "statuscode", "httpstatus")
_NESTED = ("error", "message", "detail", "errors", "responsemetadata", "meta")
_TYPES = ("type", "reason", "error")  # names of errors, of which only the known ones are codes
_SAID = ("message", "msg", "detail", "error", "errormessage", "errormsg", "errmsg")
_ALSO_SAID = ("errordescription", "title", "reason", "type", *_CODES)
_FAILED = frozenset({"error", "fail", "failed", "failure"})


def _read_object(root: dict[str, Any], headers: Mapping[str, str]) -> Reading:
    tasks, layers = _unfold(root)
    named = find(tasks, identifier, "task_id")
    task_id = named or find(filter(has_status, tasks), identifier, "id")
    states = status_words(tasks, task_id)
    codes = [code_text(layer[key]) for layer in layers for key in _CODES if key in layer]
    types = [code_text(layer[key]) for layer in layers for key in _TYPES if key in layer]
    code = deciding([*codes, *(word for word in types if word in VERDICTS)])
    said = find(layers, _sentence, *_SAID) or find(layers, _bare_word, *_SAID) or ""
    request_id = find(layers, identifier, "requestid")
    if request_id is None:
        inside = _REQUEST_ID.search(said)
        request_id = identifier(inside and inside[1]) or _header_id(headers)
    has_ok = not OK_WORDS.isdisjoint(codes)
    is_refused = _is_refused(flat(root), has_id=task_id is not None)
    has_error = code is not None or is_refused or (bool(said) and not has_ok)
    return Reading(
        Body.JSON,
        task=None if task_id is None else _read_task(tasks, task_id, states, said, request_id),
        code=code,
        message=clean(_REQUEST_ID.sub("", said or _also_said(layers)), limit=_MAX_SAID),
        words=_all_words(layers) if has_error else "",
        status=next(filter(None, map(_http_status, layers)), None),
        request_id=request_id,
        has_error=has_error,
        is_refusal=is_refused or (code is not None and not _is_bearing(root)),
        has_status=bool(states),
        has_task_id=named is not None,
        likely_id=None if has_error or task_id is not None else likely_id(tasks),
    )


def _also_said(layers: list[dict[str, Any]]) -> str:
    return find(layers, _bare_word, "errordescription", "reason", "title") or ""


def _is_refused(layer: dict[str, Any], *, has_id: bool) -> bool:
    """Return whether an answer says of itself that it is an error."""
    if layer.get("error") or layer.get("errors"):
        return True
    if any(str(layer.get(key)).lower() == "false" for key in ("success", "ok")):
        return True
    bare = (layer.get(key) for key in ("status", "result"))  # beside an id it is that of the task
    return not has_id and any(isinstance(word, str) and word.lower() in _FAILED for word in bare)


def _is_bearing(root: dict[str, Any]) -> bool:
    """Return whether an object has more in it than an error has: perhaps an id that is not read."""
    of_errors = {*_SAID, *_ALSO_SAID, *_STATUS_CODES, *_NESTED, "requestid", "timestamp"}
    return any(value for key, value in flat(root).items() if key not in of_errors)


def _all_words(layers: list[dict[str, Any]]) -> str:
    """Return all that is said of an error, as `plain` writes it; a code that says nothing is left out."""
    said = [layer[key] for layer in layers for key in (*_SAID, *_ALSO_SAID) if key in layer]
    texts = dict.fromkeys(text[:_MAX_SAID] for text in said if isinstance(text, str))
    spoken = (text for text in texts if text.strip().lower() not in GENERIC_CODES)
    return plain(_REQUEST_ID.sub("", " / ".join(spoken)[:_MAX_HEARD]))


def _http_status(layer: dict[str, Any]) -> int | None:
    """Read the HTTP status of a refusal that a layer gives as its code."""
    for key in _STATUS_CODES:
        value = layer.get(key)
        if value and isinstance(value, (str, int)) and _REFUSED.fullmatch(str(value)):
            return int(value)
    return None


def _unfold(root: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the layers that may hold the task, and all that may hold an error; outermost first.

    A task inside the text of an error is the upstream's, under an id that means nothing here.
    """
    tasks = envelopes(root)
    layers: list[dict[str, Any]] = []
    queue = deque(tasks)
    while queue and len(layers) < _MAX_LAYERS:
        layer = flat(queue.popleft())
        layers.append(layer)
        for key in _NESTED:
            if key in layer and (found := as_error(layer[key])) is not None:
                queue.append(found)
    return tasks, layers


def _sentence(value: Any) -> str | None:
    """Read what is said for people, unless that is just "SUCCEED" or just "error"."""
    is_bare = isinstance(value, str) and value.strip().lower() in REQUEST_WORDS
    return None if is_bare else _bare_word(value)


def _bare_word(value: Any) -> str | None:
    if not isinstance(value, str) or not (word := value.strip().lower()) or word in OK_WORDS:
        return None
    return None if as_error(value) is not None else value[:_MAX_HEARD]


# Bounded on every side: the text may be hostile.
_REQUEST_ID = re.compile(r"(?i)\(request[ _]id:\s{0,9}([^\s)]{1,128})\s{0,9}\)")


def _header_id(headers: Mapping[str, str]) -> str | None:
    return identifier(header(headers, "x-request-id") or header(headers, "x-oneapi-request-id"))


# -- a task in any shape ---------------------------------------------------------------------


def _read_task(
    tasks: list[dict[str, Any]], task_id: str, words: list[str], said: str, request_id: str | None
) -> Task:
    videos = [video for layer in tasks for video in _videos(layer)]
    link = own_link(tasks, videos)
    if link is None and may_have_succeeded(words):
        link = other_link(tasks)
    status = status_of(words, has_url=link is not None)
    infos = [info for layer in tasks if (info := as_dict(layer.get("task_info"))) is not None]
    reason = find(tasks, _sentence, "task_status_msg") or find(tasks, _reason, "fail_reason")
    reason = _REQUEST_ID.sub("", reason or said)
    return Task(
        task_id=task_id,
        status=status,
        url=link if status is TaskStatus.SUCCEEDED else None,
        message=clean(doubt(words, reason) if status is TaskStatus.UNKNOWN else reason),
        external_task_id=find([*infos, *tasks], identifier, "external_task_id"),
        created_at=find(tasks, epoch, "created_at", "create_time", "submit_time"),
        updated_at=find(tasks, epoch, "updated_at", "update_time", "finish_time"),
        request_id=request_id,
    )


def _reason(value: Any) -> str | None:
    """Read the reason of a failure; some relays put the link of a success there."""
    return None if only_url(value) else _sentence(value)


def _videos(layer: dict[str, Any]) -> list[dict[str, Any]]:
    result = spelled(as_dict(layer.get("task_result")) or {})
    found = [result.get("videos"), layer.get("outputs")]
    lists = [value if isinstance(value, list) else [value] for value in found if value]
    return [spelled(video) for videos in lists for video in videos if isinstance(video, dict)]
