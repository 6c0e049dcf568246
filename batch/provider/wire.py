"""The provider's HTTP contract without I/O: status, headers and bytes in, values out.

`batch.provider.shapes` makes one reading of whatever came; here `read_submit`, `read_query` and
`read_callback` judge it. Two rules decide what an answer to a POST means:

- A task id, in any shape, is a task: somebody has paid. Everything else it says comes second.
- Only what is *known* to have created nothing may be sent again. What says nothing is `Ambiguous`.

The code in the body counts, not the HTTP status alone (a 429 may be an empty account, a 200 may be
a refusal), and a message is read only where there is no code. Nothing in here raises on bad input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote

from batch.job import Failure, FailureKind
from batch.provider.answers import (
    AccountRefused,
    Ambiguous,
    Created,
    Exists,
    Found,
    NotFound,
    QueryAnswer,
    Refused,
    Saturated,
    SubmitAnswer,
    Task,
    TaskStatus,
    Throttled,
    Unavailable,
)
from batch.provider.codes import AUTH_CODES, MISSING_CODES, REFUSED_5XX, VERDICTS, Verdict
from batch.provider.fields import header, parse_retry_after
from batch.provider.shapes import Reading, read_answer
from batch.redact import clean

RETENTION_S = 30 * 24 * 3600.0  # "cleared after 30 days", the provider's documentation
SUBMIT_PATH = "/kling/v1/videos/text2video"


def task_path(identifier: str) -> str:
    """Return the path that asks for one task, by its task id or its external id.

    Already percent-quoted: hand it to the HTTP library as it is.
    """
    return f"{SUBMIT_PATH}/{quote(identifier, safe='', errors='replace')}"


# -- what it means ---------------------------------------------------------------------------

_ACCOUNT_STATUSES = {401, 402, 403, 407}
# Below 500, and yet they say only that somebody on the way gave up waiting, or that there is such a
# request already: time-outs, too early, a conflict, and those of nginx and of load balancers.
_UNSURE_STATUSES = {408, 409, 425, 444, 460, 499}

_CREDIT = re.compile(
    r"(?i)insufficient.{0,24}(quota|balance|credit|fund)|exceeded your current quota|in arrears"
    r"|(quota|balance|credits?)\b.{0,24}(not enough|insufficient|exhausted|depleted|used up)"
    r"|resource pack.{0,12}(depleted|exhausted|expired)|余额不足|额度不足|额度已用尽"
)
_PARALLEL = re.compile(r"(?i)parallel task|concurren")
_ROUTE = re.compile(r"(?i)invalid url|unsupported relay mode|no route|cannot (post|get)\b")
_SAFETY = re.compile(
    r"(?i)risk control|content (security|policy)|sensitive (word|content|information)"
    r"|moderation|polic(y|ies)\b|violat|prohibit|nsfw|inappropriate|unsafe|flagged|敏感|风控|违规"
)
_INVALID = re.compile(r"(?i)\binvalid\b|unsupported|not supported|exceeds?\b|must be\b")
_TAKEN = re.compile(
    r"(?i)duplicat|already (exist|been used|used)|\bexists\b|\bunique\b|已存在|重复"
)
# What those write who have sent the request on, and lost the answer.
_UNSURE = re.compile(
    r"(?i)timed?[ _-]?out|time[ _-]?out|deadline exceeded|context cancel|upstream|being processed"
    r"|connection (was )?(reset|closed|aborted)|bad gateway|超时|处理中"
)
_EXTERNAL = re.compile(r"(?i)external[ _]?task[ _]?id")


def read_submit(
    status: int, headers: Mapping[str, str], body: bytes, *, resent: bool, now: float
) -> SubmitAnswer:
    """Say what an answer to a POST means (the table of the job's life).

    *resent* tells that this very external id may have been sent before: then a 1201, which stands
    for a bad value and for an id that exists, is the latter. *now* is the epoch time in seconds.
    """
    reading = read_answer(body, headers)
    # `id` beside a status is enough for a task only where the answer claims success.
    task, is_success = reading.task, 200 <= status < 300
    if task is not None and is_success and task.status is not TaskStatus.FAILED:
        return Created(task)
    if task is not None and reading.has_task_id:
        return Created(task)
    retry_after_s = parse_retry_after(header(headers, "retry-after"), now)
    verdict = _by_code(status, reading, resent=resent) or _by_status(status, reading)
    failure = _failure(_KINDS[verdict], status, reading)
    if verdict is Verdict.THROTTLED:
        return Throttled(failure, retry_after_s)
    if verdict is Verdict.SATURATED:
        return Saturated(failure, retry_after_s)
    return _PLAIN_ANSWERS[verdict](failure)


_KINDS = {
    Verdict.ACCOUNT: FailureKind.ACCOUNT,
    Verdict.SATURATED: FailureKind.RATE_LIMITED,
    Verdict.THROTTLED: FailureKind.RATE_LIMITED,
    Verdict.EXISTS: FailureKind.UNCONFIRMED,
    Verdict.INVALID: FailureKind.INVALID_REQUEST,
    Verdict.MODERATION: FailureKind.MODERATION,
    Verdict.AMBIGUOUS: FailureKind.PROVIDER,
}
_PLAIN_ANSWERS: dict[Verdict, Callable[[Failure], SubmitAnswer]] = {
    Verdict.ACCOUNT: AccountRefused,
    Verdict.EXISTS: Exists,
    Verdict.INVALID: Refused,
    Verdict.MODERATION: Refused,
    Verdict.AMBIGUOUS: Ambiguous,
}


def _by_code(status: int, reading: Reading, *, resent: bool) -> Verdict | None:
    """Judge by what the body says, as far as that settles it."""
    verdict = VERDICTS.get(reading.code or "")
    if 300 <= status < 400:
        return Verdict.ACCOUNT
    if status >= 500:
        # A 5xx says nothing, unless the body names a cause that comes before any task.
        has_cause = verdict in {Verdict.ACCOUNT, Verdict.SATURATED}
        is_settled = has_cause or (status, reading.code) in REFUSED_5XX
        return verdict if is_settled else Verdict.AMBIGUOUS
    if reading.has_error and _says_exists(reading, resent=resent):
        return Verdict.EXISTS
    if status in _ACCOUNT_STATUSES and verdict is Verdict.INVALID:
        return Verdict.ACCOUNT  # the gateway calls a bad key "invalid_request" too
    return verdict


def _says_exists(reading: Reading, *, resent: bool) -> bool:
    is_1201 = reading.code == "1201"
    if is_1201 and resent:
        return True
    # An id that may have been sent before needs no name to be the one that is taken.
    names_id = is_1201 or resent or _EXTERNAL.search(reading.message) is not None
    is_taken = _TAKEN.search(reading.message) is not None
    return names_id and is_taken and "not exist" not in reading.message.lower()


def _by_status(status: int, reading: Reading) -> Verdict:
    """Judge an answer below 500 whose code is absent or unknown."""
    if status in _ACCOUNT_STATUSES:
        return Verdict.ACCOUNT  # a firewall's page too: it refuses before anything is created
    if status == 429:
        return _by_words(reading, otherwise=Verdict.THROTTLED)
    if status in _UNSURE_STATUSES:
        return Verdict.AMBIGUOUS  # a look-up costs nothing; a task given up is paid for again
    if (reading.has_error and 400 <= status < 500) or status in {413, 422}:
        return _by_words(reading, otherwise=Verdict.INVALID)
    return Verdict.AMBIGUOUS


def _by_words(reading: Reading, *, otherwise: Verdict) -> Verdict:
    if _CREDIT.search(reading.message) or _ROUTE.search(reading.message):
        return Verdict.ACCOUNT
    if otherwise is Verdict.THROTTLED:
        return Verdict.SATURATED if _PARALLEL.search(reading.message) else otherwise
    if _UNSURE.search(f"{reading.code} {reading.message}"):
        return Verdict.AMBIGUOUS
    return Verdict.MODERATION if _SAFETY.search(reading.message) else otherwise


def read_query(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> QueryAnswer:
    """Say what an answer to a GET means. *now* is the epoch time in seconds.

    The caller compares the ids: a provider may answer with another task than the one asked for.
    """
    reading = read_answer(body, headers)
    # An error may echo the id that was asked for; without a status that is no task yet.
    is_task = 200 <= status < 300 and (reading.has_status or not reading.has_error)
    if is_task and reading.task is not None:
        return Found(reading.task)
    if _is_locked_out(status, reading):
        return AccountRefused(_failure(FailureKind.ACCOUNT, status, reading))
    if _is_missing(status, reading):
        return NotFound(_failure(FailureKind.PROVIDER, status, reading))
    kind = FailureKind.RATE_LIMITED if status == 429 else FailureKind.PROVIDER
    retry_after_s = parse_retry_after(header(headers, "retry-after"), now)
    return Unavailable(_failure(kind, status, reading), retry_after_s)


def _is_missing(status: int, reading: Reading) -> bool:
    """Tell whether the API itself says so; a proxy's 404 and a wrong path prove nothing."""
    if status >= 500 or status == 429 or _ROUTE.search(reading.message):
        return False
    return reading.code in MISSING_CODES or (status == 404 and reading.has_error)


def _is_locked_out(status: int, reading: Reading) -> bool:
    """Tell whether the key itself is refused. Looking costs nothing, so credit does not matter."""
    if status >= 500 or status == 429:
        return False
    if status == 401 or reading.code in AUTH_CODES:
        return True
    code = VERDICTS.get(reading.code or "")
    is_credit = code is Verdict.ACCOUNT and reading.code != "1103"
    is_credit = is_credit or _CREDIT.search(reading.message) is not None
    return status == 403 and reading.has_error and not is_credit


def read_callback(body: bytes) -> Task | None:
    """Read a callback: a bare task, one in an envelope, or the newer API's. None if it is none.

    Nothing in it is proved; it is a hint to ask for that task.
    """
    reading = read_answer(body, {})
    return reading.task if reading.has_status else None


def task_failure(task: Task) -> Failure:
    """Say whose the failure of a failed task is: moderation's, the input's, or the generation's."""
    is_safety = _SAFETY.search(task.message) is not None
    is_invalid = _INVALID.search(task.message) is not None
    kind = FailureKind.INVALID_REQUEST if is_invalid else FailureKind.GENERATION
    kind = FailureKind.MODERATION if is_safety else kind
    message = task.message or "The provider gave no reason."
    return Failure(kind, message, http_status=200, request_id=task.request_id)


def _failure(kind: FailureKind, status: int, reading: Reading) -> Failure:
    message = clean(reading.message) or f"HTTP {status} {reading.body.value}"
    if 300 <= status < 400:
        message = f"HTTP {status}: the server redirects; check the base URL"
    return Failure(kind, message, reading.code, status, reading.request_id)
