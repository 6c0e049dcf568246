"""Estimate the price of a video: a dated table with its sources, and overrides from the manifest.

All prices are in USD; only the provider knows the bill. CometAPI's prices per clip come first;
where it publishes none, Kling's own list per second of output is used.

Under `prices:` a manifest overrides or adds models:

    prices:
      kling-v2-6: {std: 0.042/s, pro: 0.35, pro+sound: 0.14/s}   # per second, or per clip
      kling-v1: {std: {5: 0.13, 10: 0.26}}                       # per clip, by duration
      kling-v9: 0.20/s                                           # whatever the mode

With sound on, the price of `mode+sound` applies, or else that of the mode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from batch.job import Job

COMETAPI = "CometAPI, article on Kling prices, December 2025 (range repeated in May 2026)"
KLING = "Kling, official price list, August 2026"

ANY_MODE = "*"
PRICED_MODES = ("std", "pro", "4k", "std+sound", "pro+sound", "4k+sound")
# In a canonical request. What is left of it decides the price, and is the same for most jobs.
_PROMPTS = re.compile(r'prompt":"[^"\\]*(?:\\.[^"\\]*)*"')
_MAX_PRICES = 4_096
_LONGEST_S = 15  # of any known model; stands in for an unreadable duration


class Price(NamedTuple):
    """An estimate; if not `known`, the highest known price for that duration."""

    usd: float
    known: bool


class Tariff(NamedTuple):
    """A price in USD: per second, per clip, or per clip by duration."""

    per_second: float = 0.0
    per_clip: float = 0.0
    clips: tuple[tuple[int, float], ...] = ()

    def usd(self, seconds: int) -> float:
        """Return the price of one clip of *seconds*.

        A duration that `clips` does not list costs as much as the next longer one; beyond the
        longest, the price grows in proportion.
        """
        if self.clips:
            for listed, price in sorted(self.clips):
                if seconds <= listed:
                    return price
            longest, price = max(self.clips)
            return price * seconds / longest
        return self.per_clip + self.per_second * seconds


Overrides = Mapping[str, Mapping[str, Tariff]]


class Listing(NamedTuple):
    """One line of the table."""

    model: str
    mode: str
    tariff: Tariff
    source: str


def _clips(five: float, ten: float) -> Tariff:
    return Tariff(clips=((5, five), (10, ten)))


def _comet(model: str, mode: str, five: float, ten: float) -> Listing:
    return Listing(model, mode, _clips(five, ten), COMETAPI)


def _kling(model: str, mode: str, per_second: float) -> Listing:
    return Listing(model, mode, Tariff(per_second=per_second), KLING)


LISTINGS: tuple[Listing, ...] = (
    _comet("kling-v1", "std", 0.13, 0.26),
    _comet("kling-v1", "pro", 0.46, 0.92),
    _comet("kling-v1-5", "std", 0.26, 0.53),
    _comet("kling-v1-5", "pro", 0.46, 0.92),
    _comet("kling-v1-6", "std", 0.26, 0.53),
    _comet("kling-v1-6", "pro", 0.46, 0.92),
    _comet("kling-v2-master", ANY_MODE, 1.32, 2.64),
    _comet("kling-v2-1", "std", 0.26, 0.53),
    _comet("kling-v2-1", "pro", 0.46, 0.92),
    _comet("kling-v2-1-master", ANY_MODE, 1.32, 2.64),
    _kling("kling-v2-5-turbo", "std", 0.042),
    _comet("kling-v2-5-turbo", "pro", 0.33, 0.66),
    _kling("kling-v2-6", "std", 0.042),
    _kling("kling-v2-6", "pro", 0.07),
    _kling("kling-v2-6", "pro+sound", 0.14),
    _kling("kling-v3", "std", 0.084),
    _kling("kling-v3", "pro", 0.112),
    _kling("kling-v3", "4k", 0.42),
    _kling("kling-v3", "std+sound", 0.126),
    _kling("kling-v3", "pro+sound", 0.168),
    _kling("kling-v3", "4k+sound", 0.42),
)

TABLE: dict[str, dict[str, Tariff]] = {}
for _listing in LISTINGS:
    TABLE.setdefault(_listing.model, {})[_listing.mode] = _listing.tariff

# Other models ignore sound, and the price of the mode applies.
_SOUND_MODELS = frozenset(line.model for line in LISTINGS if line.mode.endswith("+sound"))


def estimate(body: Mapping[str, Any], overrides: Overrides | None = None) -> Price:
    """Return an estimate of the price of the request *body*.

    An unknown price counts as the highest known one for that duration, overrides included, so
    that a budget errs on the safe side.
    """
    seconds = _seconds(body.get("duration"))
    tariff = _find(body, overrides or {})
    if tariff is not None:
        return Price(round(tariff.usd(seconds), 6), known=True)
    return Price(round(_highest(seconds, overrides or {}), 6), known=False)


def estimator(overrides: Overrides) -> Callable[[Job], tuple[float, bool]]:
    """Return the estimator of one job in USD; its second value tells whether the price is known."""
    prices: dict[str, tuple[float, bool]] = {}

    def price(job: Job) -> tuple[float, bool]:
        options = _PROMPTS.sub("", job.request)
        found = prices.get(options)
        if found is None:
            estimated = estimate(job.body(), overrides)
            found = estimated.usd, estimated.known
            if len(prices) < _MAX_PRICES:
                prices[options] = found
        return found

    return price


def _find(body: Mapping[str, Any], overrides: Overrides) -> Tariff | None:
    model = str(body.get("model_name"))
    mode = str(body.get("mode") or "std")
    has_sound = body.get("sound") == "on"
    own = overrides.get(model)
    if own is not None:
        wanted = [f"{mode}+sound", mode, ANY_MODE] if has_sound else [mode, ANY_MODE]
        for name in wanted:
            if name in own:
                return own[name]
    listed = TABLE.get(model, {})
    if ANY_MODE in listed:
        return listed[ANY_MODE]
    return listed.get(f"{mode}+sound" if has_sound and model in _SOUND_MODELS else mode)


def _highest(seconds: int, overrides: Overrides) -> float:
    tables = (TABLE, overrides)
    return max(
        t.usd(seconds) for table in tables for modes in table.values() for t in modes.values()
    )


def _seconds(duration: Any) -> int:
    text = str(duration)
    return int(text) if re.fullmatch(r"[0-9]{1,3}", text) else _LONGEST_S


_MONEY = r"(?:\$ ?|USD )?([0-9]{1,9}(?:\.[0-9]{1,6})?)(?: ?(?:USD|\$))?"
MONEY_PATTERN = r"^\$? ?[0-9]+(\.[0-9]+)?( ?(USD|\$))?$"
PRICE_PATTERN = r"^\$? ?[0-9]+(\.[0-9]+)?( ?(USD|\$))?( ?/ ?(s|clip))?$"


def parse_money(text: str) -> float:
    """Return an amount in USD: `25`, `25.00`, `$25`, `25 USD`.

    Raises:
        ValueError: anything else, negative amounts included.
    """
    found = re.fullmatch(_MONEY, text.strip())
    if found is None:
        hint = " (a point, not a comma, before the cents)" if "," in text else ""
        raise ValueError(f"{text[:40]!r} is not a valid amount in USD; for example 25.00{hint}")
    return float(found[1])


def parse_tariff(text: str) -> Tariff:
    """Return a price: `0.042/s` for a second of output, `0.35` or `0.35/clip` for a clip.

    Raises:
        ValueError: anything else.
    """
    amount, slash, unit = (part.strip() for part in text.partition("/"))
    if slash and unit not in ("s", "clip"):
        raise ValueError(
            f"{text[:40]!r} is not a valid price; for example 0.042/s or 0.35 (per clip)"
        )
    usd = parse_money(amount)
    return Tariff(per_second=usd) if unit == "s" else Tariff(per_clip=usd)
