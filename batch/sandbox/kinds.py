"""The names of all faults, stage by stage, each with its effect."""

from __future__ import annotations

from batch.sandbox.canned import CANNED

ANSWERS: dict[str, str] = {
    **{kind: canned.describe() for kind, canned in CANNED.items()},
    "garbled-2xx": "HTTP 200: the JSON ends at `at`",
    "drop": "closes the connection without an answer",
    "hang": "answers nothing for `seconds`",
    "slow": "answers after `seconds`",
    "truncated": "closes the connection within the body, at `at`",
    "big-header": "the answer with one header of `size` bytes (60000)",
    "many-headers": "the answer with `size` headers more (500)",
}
DRESSES: dict[str, str] = {
    "shape": "the answer in shape `n` of five; 0 takes each in turn",
    "numeric-ids": "task ids as JSON numbers",
}
# Each of these claims success, so a task is created, unless the rule says `-before`.
CREATING = frozenset(
    ("empty-2xx", "garbled-2xx", "html-2xx", "truncated", "slow", "big-header", "many-headers")
)
FAILURES: dict[str, str] = {
    "moderation": "Failure to pass the risk control system",
    "reworded-moderation": "Your request was rejected by our safety system.",
    "generation": "generation error",
    "unknown-words": "The take did not come together",
    "empty-failure": "",
}
_TASKS = {
    **ANSWERS,
    **DRESSES,
    "link": "the link in another place: `to`",
    "unknown-status": "a status that is not documented",
    "backwards": "the status submitted again",
    "no-url": "succeed without a link",
    "failed": "failed, though the task has not",
    "other-task": "the oldest task, whatever was asked for",
}
_SUBMIT = {
    **ANSWERS,
    **{
        f"{kind}-{when}": f"{ANSWERS[kind]}; {created}"
        for kind in ANSWERS
        for when, created in (("before", "nothing is created"), ("after", "the task is created"))
    },
    **DRESSES,
}

KINDS: dict[str, dict[str, str]] = {
    "any": ANSWERS,
    "connection": {"idle": "loses the request on a connection that was idle for `seconds` (5)"},
    "submit": _SUBMIT,
    "query": _TASKS,
    "lookup": _TASKS,
    "list": {**ANSWERS, **DRESSES},
    "outcome": {
        **{kind: f'the task fails: "{words}"' for kind, words in FAILURES.items()},
        "stuck": "the task never ends",
    },
    "download": {
        "cut": "closes the connection within the file, at `at`",
        "stall": "sends nothing for `seconds`, from `at` on",
        "slow": "sends `bytes_per_s`",
        "drop": ANSWERS["drop"],
        "hang": ANSWERS["hang"],
        "403": "HTTP 403",
        "404": "HTTP 404",
        "416": "refuses every range",
        "429": "HTTP 429; see `retry_after`",
        "500": "HTTP 500",
        "503": "HTTP 503; see `retry_after`",
        "203": "the video under HTTP 203",
        "206": "the video under HTTP 206 without Content-Range",
        "html-200": "a page in place of the video",
        "empty-200": "no body",
        "label": "the video with the Content-Type `to` (text/html)",
        "gzip": "the video packed, whatever Accept-Encoding says",
        "big-header": ANSWERS["big-header"],
        "many-headers": ANSWERS["many-headers"],
        "no-range": "ignores ranges",
        "no-length": "no Content-Length",
        "wrong-offset": "another range than was asked for",
        "etag-changes": "another file and ETag each time",
        "zero-filled": "zeros from `at` on",
        "truncated-file": "a file that ends at `at`, with a length that fits",
        "wrong-ratio": "a video of another aspect ratio",
        "wrong-duration": "a video of half the length",
        "redirect": "HTTP 302 to `to`, or to where the video is",
        "redirect-evil": "HTTP 302 to `to` (a file of the machine)",
    },
    "callback": {
        "late": "comes `seconds` late",
        "twice": "comes twice",
        "out-of-order": "comes after its successor",
        "forged": "is preceded by a lie",
        "wrong-path": "comes to another path, without its token",
        "never": "does not come",
    },
}
