"""What a person is told to do where the whole account is refused."""

from __future__ import annotations

import pytest

from batch.job import Failure, FailureKind
from batch.run.advice import account_advice


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (400, "余额不足，请充值", "top up"),
        (402, "x", "top up"),
        (401, "x", "COMETAPI_KEY"),
        (400, "invalid api key", "COMETAPI_KEY"),
        (403, "permission denied", "permitted"),
        (404, "invalid url (POST /v1)", "--base-url"),
        (407, "HTTP 407 with an empty body", "of the proxy"),
        (400, "x", "at the provider"),
    ],
)
def test_advice_names_what_is_to_be_mended(status: int, said: str, expected: str) -> None:
    failure = Failure(FailureKind.ACCOUNT, said, http_status=status)
    assert expected in account_advice(failure)
