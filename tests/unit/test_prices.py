"""The price of a job, known or estimated."""

from __future__ import annotations

from typing import Any

import pytest

from batch.prices import LISTINGS, TABLE, Price, Tariff, estimate, parse_money, parse_tariff


def body(model: str, mode: str | None, seconds: int, sound: str | None = None) -> dict[str, Any]:
    options = {"model_name": model, "mode": mode, "duration": str(seconds), "sound": sound}
    return {name: value for name, value in options.items() if value is not None}


@pytest.mark.parametrize(
    ("request_body", "usd"),
    [
        (body("kling-v2-6", "std", 5), 0.21),
        (body("kling-v2-6", "pro", 10), 0.70),
        (body("kling-v2-6", "pro", 10, "on"), 1.40),
        (body("kling-v2-6", "pro", 10, "off"), 0.70),
        (body("kling-v3", "std", 15), 1.26),
        (body("kling-v3", "pro", 5, "on"), 0.84),
        (body("kling-v2-5-turbo", "pro", 10), 0.66),
        (body("kling-v2-5-turbo", "pro", 10, "on"), 0.66),
        (body("kling-v1", "std", 5), 0.13),
        (body("kling-v2-master", None, 5), 1.32),
        (body("kling-v2-master", "pro", 10), 2.64),
    ],
)
def test_listed_price_is_known(request_body: dict[str, Any], usd: float) -> None:
    assert estimate(request_body) == Price(pytest.approx(usd), known=True)


@pytest.mark.parametrize(
    "request_body", [body("kling-v9", "std", 5), body("kling-v2-6", "std", 5, "on")]
)
def test_unknown_price_counts_as_the_highest_known(request_body: dict[str, Any]) -> None:
    dearest = max(line.tariff.usd(5) for line in LISTINGS)

    assert estimate(request_body) == Price(pytest.approx(dearest), known=False)
    assert estimate({}).known is False


def test_override_wins_and_can_be_the_highest() -> None:
    overrides = {
        "kling-v2-6": {"std": Tariff(per_second=0.1), "pro+sound": Tariff(per_clip=9.0)},
        "kling-v9": {"*": Tariff(clips=((5, 1.0), (10, 50.0)))},
    }

    assert estimate(body("kling-v2-6", "std", 5), overrides).usd == 0.5
    assert estimate(body("kling-v2-6", "std", 5, "on"), overrides).usd == 0.5
    assert estimate(body("kling-v2-6", "pro", 5), overrides).usd == 0.35
    assert estimate(body("kling-v2-6", "pro", 5, "on"), overrides).usd == 9
    assert estimate(body("kling-v9", "std", 7), overrides).usd == 50
    assert estimate(body("kling-v9", "std", 20), overrides).usd == 100
    assert estimate(body("kling-v8", "std", 10), overrides) == Price(50, known=False)


def test_every_listing_has_a_source_and_a_price() -> None:
    assert all(line.source and line.tariff.usd(5) > 0 for line in LISTINGS)
    assert sum(map(len, TABLE.values())) == len(LISTINGS)


@pytest.mark.parametrize("text", ["25", "25.00", "$25", " 25 USD ", "25$"])
def test_money_is_read(text: str) -> None:
    assert parse_money(text) == 25


@pytest.mark.parametrize("text", ["", "-1", "25,00", "1e3", "nan", "inf", "a", "1.2.3", "٣"])
def test_invalid_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="for example"):
        parse_money(text)


def test_tariff_is_per_second_or_per_clip() -> None:
    assert parse_tariff("0.042/s") == Tariff(per_second=0.042)
    assert parse_tariff("0.35") == parse_tariff("$0.35 / clip") == Tariff(per_clip=0.35)
    with pytest.raises(ValueError, match=r"for example 0\.042/s"):
        parse_tariff("1/min")
