"""Waiting for a page. Its policy forbids Playwright's own waiting, which evaluates a text."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from patience import PATIENCE_S

PAUSE_S = 0.02


def until(condition: Callable[[], Any], what: str) -> None:
    """Return as soon as *condition* holds.

    Raises:
        AssertionError: it does not hold after a while; *what* says what was waited for.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(PAUSE_S)
