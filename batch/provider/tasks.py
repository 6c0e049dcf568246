"""A task in any shape: its envelopes, the spelling of its keys, and what its statuses say."""

from __future__ import annotations

import re
from typing import Any

from batch.provider.answers import TaskStatus
from batch.provider.codes import OK_WORDS, code_text, deciding
from batch.provider.fields import as_dict, flat, identifier

_MAX_DATA = 4  # root → data → data.data → data.data.data

# -- envelopes -------------------------------------------------------------------------------

# The keys that are read of a task, by how `flat` writes them; and what relays call two of them.
_KEYS = {
    key.replace("_", ""): key
    for key in (
        *("data", "id", "code", "status", "task_id", "task_status", "task_status_msg", "outputs"),
        *(
            "task_result",
            "task_info",
            "external_task_id",
            "fail_reason",
            "result_url",
            "created_at",
        ),
        *("updated_at", "create_time", "update_time", "submit_time", "finish_time", "videos"),
        "url",
    )
} | {"jobid": "id", "state": "status"}

_AS_KLING = frozenset({*_KEYS.values(), "message", "request_id", "duration"})

# What holds a task besides `data`, where the layer around it names none.
_ENVELOPES = (
    *("output", "result", "response", "task", "job", "payload", "body"),
    *("results", "tasks", "list", "items", "records"),
)


# Where the id of a new task may stand that is not named as such.
_LIKELY = ("id", "data", "result", "predictionid", "generationid", "videoid", "taskids", "ids")


def spelled(layer: dict[str, Any]) -> dict[str, Any]:
    """Return an object with the keys of a task as Kling spells them: `TaskId` is also `task_id`."""
    if layer.keys() <= _AS_KLING:  # as nearly always
        return layer
    also = {_KEYS[key]: value for key, value in flat(layer).items() if key in _KEYS}
    return also | layer


def envelopes(root: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers that may hold a task, outermost first."""
    layers = [spelled(root)]
    while len(layers) < _MAX_DATA and (inner := _inside(layers[-1])) is not None:
        layers.append(spelled(inner))
    return layers


def pick(value: Any, asked: str, depth: int = 0) -> Any:
    """Return an answer whose lists of tasks hold only the task that was *asked* for, by either of its ids.

    A list that holds none of it stays as it is, and so does one with two of it: which is meant?
    """
    if isinstance(value, list) and len(value) > 1:
        mine = [item for item in value if isinstance(item, dict) and asked in _names(item)]
        return mine[0] if len(mine) == 1 else value
    if not isinstance(value, dict) or depth == _MAX_DATA:
        return value
    held = {key: item for key, item in value.items() if key.lower() in {"data", *_ENVELOPES}}
    return {**value, **{key: pick(item, asked, depth + 1) for key, item in held.items()}}


def _names(item: dict[str, Any]) -> set[str | None]:
    task = spelled(item)
    layers = [task, spelled(as_dict(task.get("task_info")) or {})]
    ids = [layer.get(key) for layer in layers for key in ("task_id", "external_task_id")]
    return {*map(identifier, ids), identifier(task.get("id")) if has_status(task) else None}


def likely_id(layers: list[dict[str, Any]]) -> str | None:
    """Return what may be the id of a task that no key names: a guess, to be confirmed by a query."""
    for layer in reversed(layers):
        named = flat(layer)
        values = (named.get(key) for key in _LIKELY)
        firsts = (value[0] if isinstance(value, list) and value else value for value in values)
        found = next(filter(None, map(identifier, firsts)), None)
        if found is not None and re.search(r"\d", found):
            return found
    return None


def _inside(layer: dict[str, Any]) -> dict[str, Any] | None:
    data = as_dict(layer.get("data"))
    if data is not None or _is_a_task(layer):
        return data
    named = flat(layer)
    found = (_object(named.get(key)) for key in _ENVELOPES)
    return next((inner for inner in found if inner and _may_hold_a_task(inner)), None)


def _is_a_task(layer: dict[str, Any]) -> bool:
    if "task_status" in layer or identifier(layer.get("task_id")) is not None:
        return True
    return identifier(layer.get("id")) is not None and has_status(layer)


def _object(value: Any) -> dict[str, Any] | None:
    """Read an object or a list of one; in a text it would be the upstream's, in an error of the relay."""
    return None if isinstance(value, str) else as_dict(value)


def _may_hold_a_task(inner: dict[str, Any]) -> bool:
    held = ("data", "task", "id", "task_id", "task_status")
    return not spelled(inner).keys().isdisjoint(held)


# -- statuses --------------------------------------------------------------------------------

_STATUSES = {
    **dict.fromkeys(("submitted", "queued", "pending", "not_start"), TaskStatus.SUBMITTED),
    **dict.fromkeys(("processing", "in_progress", "running"), TaskStatus.PROCESSING),
    **dict.fromkeys(("succeed", "succeeded", "success"), TaskStatus.SUCCEEDED),
    **dict.fromkeys(("completed", "complete", "done"), TaskStatus.SUCCEEDED),
    **dict.fromkeys(("finished", "finish", "successful", "成功", "已完成"), TaskStatus.SUCCEEDED),
    **dict.fromkeys(("failed", "failure", "fail", "error"), TaskStatus.FAILED),
    **dict.fromkeys(("canceled", "cancelled"), TaskStatus.FAILED),
}
_BLANKS = re.compile(r"[\s-]+")
_PREFIX = re.compile(r"^((task|job|video|generation)_)?(status_)?(?=.)")
# What a bare `status` says of a request, not of a task (JSend's words).
REQUEST_WORDS = frozenset({"error", "fail"})


def has_status(layer: dict[str, Any]) -> bool:
    """Return whether an `id` may be a task's, as in the newer API; alone it may be anything's."""
    words = (word_of(layer.get(key)) for key in ("task_status", "status"))
    return any(word not in {"", *REQUEST_WORDS} for word in words)


def doubt(words: list[str], reason: str) -> str:
    """Say why a status is not believed, with the provider's words."""
    told = f": {reason}" if reason else ""
    if not words:
        return reason
    if _STATUSES.get(words[0]) is TaskStatus.FAILED:
        deeper = ", ".join(dict.fromkeys(words[1:]))
        return f"the gateway says {words[0]}{told}; the task inside says {deeper}"
    return f"the status {words[0]!r} is not known{told}"


def word_of(value: Any) -> str:
    """Return a status in one spelling: `TASK_STATUS_IN-PROGRESS` is `in_progress`."""
    if not isinstance(value, str):
        return ""
    word = value.strip().lower()
    return word if word in _STATUSES else _PREFIX.sub("", _BLANKS.sub("_", word))


def status_words(tasks: list[dict[str, Any]], task_id: str | None) -> list[str]:
    """Return the statuses of the task itself, outermost first.

    `task_status` is the task's wherever it stands. A bare `status` may be that of the request: it
    is read only beside an id, in the layer that names the task or below, or inside an envelope that
    reports success; and never as a failure in an answer with an error code, for then the request
    has failed, not the task.
    """
    words: list[str] = []
    is_inside = is_error = is_well = False
    for layer in tasks:
        ids = {identifier(layer.get("task_id")), identifier(layer.get("id"))} - {None}
        is_inside = is_inside or task_id in ids
        code = code_text(layer.get("code"))
        is_error = is_error or deciding([code]) is not None
        word = word_of(layer.get("task_status"))
        if not word and (is_well or (ids and is_inside)):
            word = word_of(layer.get("status"))
            is_failure = _STATUSES.get(word) is TaskStatus.FAILED
            word = "" if word in REQUEST_WORDS or (is_failure and is_error) else word
        is_well = is_well or code in OK_WORDS
        if word:
            words.append(word)
    return words


def may_have_succeeded(words: list[str]) -> bool:
    """Return whether a link in any place may be the result: what a failed task links to is not."""
    known = {_STATUSES.get(word) for word in words}
    return TaskStatus.SUCCEEDED in known and TaskStatus.FAILED not in known


def status_of(words: list[str], *, has_url: bool) -> TaskStatus:
    """Return the outermost known status.

    A "success" without a link yields to a deeper layer: it may have been that of the request, and
    new-api has called failed tasks successful. A failure is believed only where no deeper layer
    contradicts it: a new task would be paid for while this one lives.
    """
    known = [status for word in words if (status := _STATUSES.get(word)) is not None]
    if not has_url and known[:1] == [TaskStatus.SUCCEEDED]:
        known = [status for status in known if status is not TaskStatus.SUCCEEDED] or known
    first, *deeper = known or [TaskStatus.UNKNOWN]
    if first is not TaskStatus.FAILED or set(deeper) <= {first}:
        return first
    is_there = has_url and TaskStatus.SUCCEEDED in deeper
    return TaskStatus.SUCCEEDED if is_there else TaskStatus.UNKNOWN
