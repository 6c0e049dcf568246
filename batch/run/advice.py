"""What a person can do when the provider refuses the whole account."""

from __future__ import annotations

from batch.job import Failure
from batch.provider.codes import AUTH_CODES
from batch.provider.words import KEY, ROUTE, plain, says_no_credit

NO_CREDIT_CODES = frozenset({"1101", "1102", "insufficient_user_quota", "insufficient_quota"})


def account_advice(failure: Failure) -> str:
    """Return what to do about a refusal of the account, by its code, its words or its HTTP status."""
    words = plain(failure.message)
    if failure.code in NO_CREDIT_CODES or failure.http_status == 402 or says_no_credit(words):
        return "top up the account, and run again"
    if failure.code == "1304":
        return "let the account accept requests from this machine's address, and run again"
    if ROUTE.search(words):
        return "check the base URL (--base-url), and run again"
    if failure.http_status == 407:
        return "give the name and password of the proxy in its URL, and run again"
    if failure.code in AUTH_CODES or failure.http_status == 401 or KEY.search(words):
        return "check the key (COMETAPI_KEY), and run again"
    if failure.code == "1103" or failure.http_status == 403:
        return "check what the key is permitted to use, and run again"
    return "check the account at the provider, and run again"
