"""How long to wait before the same request goes out again. Pure: the dice are handed in.

*Whether* it may go out again is not decided here but by what the answer was (`batch.provider.wire`).
"""

from __future__ import annotations

import random

_MAX_DOUBLINGS = 62  # beyond this every cap is reached, and a float still is a float


def backoff(attempt: int, *, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Return seconds to wait after the *attempt*-th failure in a row, counted from 1.

    Equal jitter: at least half of `base_s * 2 ** (attempt - 1)`, at most all of it, never more than
    *cap_s*. The lower half keeps a lone client from hammering, the upper spreads a crowd.
    """
    doublings = min(max(attempt - 1, 0), _MAX_DOUBLINGS)
    ceiling = max(min(base_s * 2.0**doublings, cap_s), 0.0)
    return ceiling / 2 + rng.random() * ceiling / 2


def delay(
    attempt: int,
    retry_after_s: float | None,
    *,
    base_s: float,
    cap_s: float,
    rng: random.Random,
) -> float:
    """Return seconds to wait when the server may have said how long.

    Its word wins if it is longer than our own backoff, even beyond *cap_s*; never if shorter.
    """
    own = backoff(attempt, base_s=base_s, cap_s=cap_s, rng=rng)
    return own if retry_after_s is None else max(own, retry_after_s)
