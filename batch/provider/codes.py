"""The provider's codes, and what each of them means.

Kling's numbers (API sheet, 4a) and the words of CometAPI and of new-api (4b, 4c).
`batch.provider.wire` decides, since it also knows the HTTP status.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from batch.redact import clean


class Verdict(Enum):
    """What a code says of a request, where the HTTP status says nothing else."""

    ACCOUNT = auto()
    SATURATED = auto()
    THROTTLED = auto()
    EXISTS = auto()
    INVALID = auto()
    MODERATION = auto()
    AMBIGUOUS = auto()


# Written by gateways on any refusal: the words know more.
GENERIC_CODES = frozenset({"invalid_request", "invalid_request_error"})

VERDICTS: dict[str, Verdict] = {
    **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), Verdict.ACCOUNT),
    **dict.fromkeys(("1100", "1101", "1102", "1103", "1304"), Verdict.ACCOUNT),
    **dict.fromkeys(("insufficient_user_quota", "insufficient_quota"), Verdict.ACCOUNT),
    **dict.fromkeys(("pre_consume_token_quota_failed", "invalid_api_key"), Verdict.ACCOUNT),
    "1302": Verdict.THROTTLED,
    "1303": Verdict.SATURATED,
    **dict.fromkeys(("1200", "1201", "1202", "1203"), Verdict.INVALID),
    **dict.fromkeys(("model_not_found", "model_price_error"), Verdict.INVALID),
    **dict.fromkeys(GENERIC_CODES, Verdict.INVALID),
    **dict.fromkeys(("1300", "1301", "sensitive_words_detected"), Verdict.MODERATION),
    **dict.fromkeys(("5000", "5001", "5002"), Verdict.AMBIGUOUS),
    # The gateway has sent the request on, and lost the answer.
    **dict.fromkeys(("do_request_failed", "read_response_body_failed"), Verdict.AMBIGUOUS),
    "unmarshal_response_failed": Verdict.AMBIGUOUS,
}

# Codes, and messages in place of one, that say that all is well.
OK_WORDS = frozenset({"0", "200", "ok", "success", "succeed", "succeeded"})

AUTH_CODES = frozenset({"1000", "1001", "1002", "1003", "1004", "invalid_api_key"})
MISSING_CODES = frozenset({"1203", "task_not_exist", "task_not_found"})

# Answers of 500 and above that surely come before any task.
REFUSED_5XX: dict[tuple[int, str | None], Verdict] = {
    (500, "invalid_request"): Verdict.INVALID,
    (503, "model_not_found"): Verdict.INVALID,
}


def code_text(value: Any) -> str | None:
    """Read a code, in lower case."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = str(int(value))
    return clean(value, limit=64).lower() or None if isinstance(value, str) else None


def deciding(found: list[str | None]) -> str | None:
    """Pick the code that decides: Kling's number wherever it hides, then a word that we know."""
    codes = [code for code in found if code is not None and code not in OK_WORDS]
    if not codes:
        return None
    known = [code for code in codes if code in VERDICTS]
    numbers = [code for code in known if code.isdigit()]
    return next(iter([*numbers, *known, *codes]), None)
