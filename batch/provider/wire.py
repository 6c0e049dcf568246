"""The provider's HTTP contract without I/O: status, headers and bytes in, values out.

`batch.provider.shapes` makes one reading of whatever came; `read_submit`, `read_query`,
`read_callback` and `task_failure` judge it. Nothing in here raises on bad input.

What an answer to a POST means, by order of authority. The first row that applies decides:

| | the answer | verdict |
| - | --- | --- |
| 1 | a task id, in any shape, under any status | created |
| 2 | status 3xx | account: the base URL is wrong; 303, or to a task of its own: ambiguous |
| 3 | status 5xx | ambiguous, but for a code of account or saturation, and two documented refusals |
| 4 | words that say the external id is taken; 1201 when resent | exists |
| 5 | a code of Kling's, wherever it stands, or a known word | as `codes` says |
| 6 | status 401, 402, 407 | account |
| 7 | status 408, 409, 425, 444, 460, 499 | ambiguous |
| 8 | words: no credit, a bad key, a wrong route; not those of a refused content | account |
| 9 | status 429, or words: all slots taken; too many requests, overloaded | saturated; throttled |
| 10 | words: timed out, connection reset, internal error, also beside those of rows 9 and 15 | ambiguous |
| 11 | words: moderation; to be tried again with another prompt or value | moderation; invalid |
| 12 | status 403 | throttled with the words of row 15, else account |
| 13 | words: upstream, bad response | ambiguous |
| 14 | words: invalid, unsupported | invalid request |
| 15 | words: busy, maintenance, try again; in languages but English and Chinese under 4xx only | throttled |
| 16 | status 4xx with an error in JSON; 413, 422 | invalid request |
| 17 | anything else | ambiguous |

The status is that of HTTP. Where it is a 2xx or a plain 400, a status of 400 to 599 that the body
gives as its code takes its place: gateways wrap refusals so. The words of a 2xx count only where its
body is nothing but an error. `invalid_request` is a code that gateways write on any refusal: it holds where
rows 8, 9, 11 and 15 do not apply, and is never ambiguous. Only what is *known* to have created nothing
may be sent again: a look-up costs nothing, and a task that is given up is paid for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import quote

from batch.job import Failure, FailureKind
from batch.provider import words
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
from batch.provider.codes import (
    AUTH_CODES,
    GENERIC_CODES,
    MISSING_CODES,
    REFUSED_5XX,
    VERDICTS,
    Verdict,
)
from batch.provider.fields import header, is_carried_out, parse_retry_after
from batch.provider.passing import is_passing
from batch.provider.shapes import Body, Reading, read_answer
from batch.redact import clean

SUBMIT_PATH = "/kling/v1/videos/text2video"


def task_path(identifier: str) -> str:
    """Return the path that asks for one task, by its task id or its external id.

    Already percent-quoted: hand it to the HTTP library as it is.
    """
    return f"{SUBMIT_PATH}/{quote(identifier, safe='', errors='replace')}"


# -- an answer to a POST ---------------------------------------------------------------------

# Below 500, and yet they say only that a server on the way gave up waiting, or that there is such a
# request already: time-outs, too early, a conflict, and those of nginx and of load balancers.
_UNSURE_STATUSES = frozenset({408, 409, 425, 444, 460, 499})
_ACCOUNT_STATUSES = frozenset({401, 402, 407})


def read_submit(
    status: int, headers: Mapping[str, str], body: bytes, *, resent: bool, now: float
) -> SubmitAnswer:
    """Return what an answer to a POST means.

    Args:
        status: The HTTP status.
        headers: The headers, in any case.
        body: The body, of any size and kind.
        resent: Whether this very external id may have been sent before: then a 1201, which stands
            for a bad value and for an id that exists, is the latter.
        now: The epoch time in seconds.
    """
    reading = read_answer(body, headers)
    # `id` beside a status is enough for a task only where the answer claims success.
    task, is_success = reading.task, 200 <= status < 300
    if task is not None and is_success and task.status is not TaskStatus.FAILED:
        return Created(task)
    if task is not None and reading.has_task_id:
        return Created(task)
    retry_after_s = parse_retry_after(header(headers, "retry-after"), now)
    is_done = is_carried_out(status, header(headers, "location"), SUBMIT_PATH)
    told = 202 if is_done else _told_status(status, reading)
    verdict = _verdict(told, reading, resent=resent)
    failure = _failure(_KINDS[verdict], status, reading)
    match verdict:
        case Verdict.THROTTLED:
            return Throttled(failure, retry_after_s)
        case Verdict.SATURATED:
            return Saturated(failure, retry_after_s)
        case Verdict.AMBIGUOUS:
            named = reading.likely_id if is_success else None
            if named is not None:
                failure = replace(failure, message=f"{failure.message}, but perhaps task {named}")
            return Ambiguous(failure, is_page=_is_page(status, reading), likely_id=named)
        case _:
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
}


def _told_status(status: int, reading: Reading) -> int:
    """Return the status that counts: the body's own where HTTP says nothing in particular."""
    says_nothing = 200 <= status < 300 or status == 400
    return reading.status if says_nothing and reading.status is not None else status


def _verdict(status: int, reading: Reading, *, resent: bool) -> Verdict:
    """Go down the table of this module."""
    if 300 <= status < 400:
        return Verdict.ACCOUNT
    code = VERDICTS.get(reading.code or "")
    if status >= 500:
        if code in {Verdict.ACCOUNT, Verdict.SATURATED}:
            return code
        refused = REFUSED_5XX.get((status, reading.code))
        is_account = refused is not None and words.is_about_account(reading.words)
        return Verdict.ACCOUNT if is_account else refused or Verdict.AMBIGUOUS
    if reading.has_error and _says_exists(reading, resent=resent):
        return Verdict.EXISTS
    is_generic = reading.code in GENERIC_CODES
    if code is not None and not is_generic:
        # The gateway calls a bad key invalid too.
        is_account = code is Verdict.INVALID and status in {*_ACCOUNT_STATUSES, 403}
        return Verdict.ACCOUNT if is_account else code
    if status in _ACCOUNT_STATUSES:
        return Verdict.ACCOUNT
    if status in _UNSURE_STATUSES:
        return Verdict.AMBIGUOUS
    if status < 300 and not reading.is_refusal:  # a success, perhaps with an id that is not read
        return Verdict.AMBIGUOUS
    verdict = _by_words(status, reading.words, is_generic=is_generic)
    if verdict is not None:
        return verdict
    is_refused = reading.has_error and 400 <= status < 500
    return (
        Verdict.INVALID if is_generic or is_refused or status in {413, 422} else Verdict.AMBIGUOUS
    )


def _says_exists(reading: Reading, *, resent: bool) -> bool:
    is_1201 = reading.code == "1201"
    if is_1201 and resent:
        return True
    # An id that may have been sent before needs no name to be the one that is taken.
    names_id = is_1201 or resent or words.EXTERNAL.search(reading.words) is not None
    is_taken = words.TAKEN.search(reading.words) is not None
    return names_id and is_taken and words.ABSENT.search(reading.words) is None


def _by_words(status: int, said: str, *, is_generic: bool) -> Verdict | None:
    """Judge by words, and by what is left to the status (rows 8 to 15)."""
    if words.is_about_account(said):
        return Verdict.ACCOUNT
    is_unsure = words.UNSURE.search(said) is not None
    if words.PARALLEL.search(said) and (status == 429 or is_generic or not is_unsure):
        return Verdict.SATURATED
    if status == 429 or (words.THROTTLED.search(said) and not is_unsure):
        return Verdict.THROTTLED
    if not is_generic and is_unsure:
        return Verdict.AMBIGUOUS
    if words.is_moderation(said):
        return Verdict.MODERATION
    if words.REVISE.search(said):
        return Verdict.INVALID
    if status == 403:
        return Verdict.THROTTLED if words.puts_off(said, status) else Verdict.ACCOUNT
    if not is_generic and words.UPSTREAM.search(said):
        return Verdict.AMBIGUOUS
    if words.INVALID.search(said):
        return Verdict.INVALID
    return Verdict.THROTTLED if words.puts_off(said, status) and not is_unsure else None


def _is_page(status: int, reading: Reading) -> bool:
    """Return whether no API has answered: a page, or a 404 or 405 that is none of its own."""
    if status >= 500 or status in _UNSURE_STATUSES:  # a gateway's page about what is behind it
        return False
    return reading.body is Body.HTML or (status in {404, 405} and not reading.has_error)


# -- an answer to a GET ----------------------------------------------------------------------


def read_query(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, asked: str | None = None
) -> QueryAnswer:
    """Return what an answer to a GET means. *now* is the epoch time in seconds.

    *asked* is the id that was asked for: of a list of tasks, the one is read that has it. The caller
    compares the ids: a provider may answer with another task than the one asked for.
    """
    reading = read_answer(body, headers, asked)
    # An error may echo the id that was asked for; without a status that is no task yet.
    is_task = 200 <= status < 300 and (reading.has_status or not reading.has_error)
    if is_task and reading.task is not None:
        return Found(reading.task)
    told = _told_status(status, reading)
    if _is_locked_out(told, reading):
        return AccountRefused(_failure(FailureKind.ACCOUNT, status, reading))
    if _is_missing(told, reading):
        return NotFound(_failure(FailureKind.PROVIDER, status, reading))
    kind = FailureKind.RATE_LIMITED if told == 429 else FailureKind.PROVIDER
    retry_after_s = parse_retry_after(header(headers, "retry-after"), now)
    failure = _failure(kind, status, reading)
    return Unavailable(failure, retry_after_s, is_page=_is_page(status, reading))


def _is_missing(status: int, reading: Reading) -> bool:
    """Return whether the API itself says so; a proxy's 404 and a wrong path prove nothing."""
    if status >= 500 or status == 429 or words.ROUTE.search(reading.words):
        return False
    return reading.code in MISSING_CODES or (status == 404 and reading.has_error)


def _is_locked_out(status: int, reading: Reading) -> bool:
    """Return whether the key itself is refused. A query costs nothing: credit does not matter."""
    if status >= 500 or status == 429:
        return False
    if status == 401 or reading.code in AUTH_CODES:
        return True
    code = VERDICTS.get(reading.code or "")
    is_credit = code is Verdict.ACCOUNT and reading.code != "1103"
    if is_credit or words.says_no_credit(reading.words) or not reading.has_error:
        return False
    return status == 403 or words.says_locked(reading.words)


def read_callback(body: bytes) -> Task | None:
    """Read a callback: a bare task, one in an envelope, or the newer API's. None if it is none.

    Nothing in it is proved; it is a hint to ask for that task.
    """
    reading = read_answer(body, {})
    return reading.task if reading.has_status else None


# -- a failed task ---------------------------------------------------------------------------


def task_failure(task: Task) -> Failure:
    """Return whose the failure of a failed task is, with the provider's words.

    Only a reason that is known to pass is worth another task at once. Words in no list may be
    moderation in another wording: `Failure.is_unexplained`.
    """
    said = words.plain(task.message)
    quoted = f'"{task.message}"' if task.message else "no reason given"
    kind, is_unexplained = FailureKind.GENERATION, False
    passes = is_passing(task.message)
    if words.MODERATION_CODE.search(task.message.lower()) or (
        not passes and words.MODERATION.search(said)
    ):
        kind = FailureKind.MODERATION
        message = f"the provider's moderation refused it: {quoted}"
    elif passes:
        message = f"the provider failed to make it, which often passes: {quoted}"
    elif words.INVALID.search(said):
        kind = FailureKind.INVALID_REQUEST
        message = f"the provider calls it invalid: {quoted}"
    else:
        is_unexplained = True
        message = (
            f"the provider failed to make it, for a reason not known to pass: {quoted};"
            " such a job is retried once, in a later run, and then rests"
        )
    return Failure(kind, message, None, 200, task.request_id, is_unexplained=is_unexplained)


def _failure(kind: FailureKind, status: int, reading: Reading) -> Failure:
    message = clean(reading.message) or f"HTTP {status} {reading.body.value}"
    if 300 <= status < 400:
        message = f"HTTP {status}: the server redirects; check the base URL"
    return Failure(kind, message, reading.code, status, reading.request_id)
