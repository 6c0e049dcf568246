"""Numbers and nouns, names that were mistyped, and what became of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def counted(number: int, noun: str) -> str:
    """Return `1 task`, `2 tasks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def kept_for(full_days: int, more: str) -> str:
    """Return `29 days` and *more*; with no full day left, a video may be kept for hours yet."""
    return (
        f"{counted(full_days, 'day')} {more}" if full_days else f"less than a day {more}, if at all"
    )


def similar(name: str, names: Iterable[str], most: int = 3) -> list[str]:
    """Return those of *names* that *name* may stand for, the likeliest first.

    They are those with its words or with words that begin like them (`--flight` for
    `--max-in-flight`), or else the one that is spelled most alike.
    """
    import difflib  # noqa: PLC0415 - only a mistyped name needs it

    known = {item.lower(): item for item in names}
    parts = [word for word in _words(name) if len(word) > 2]
    found = [
        item
        for item in known
        if parts and all(any(w.startswith(part) for w in _words(item)) for part in parts)
    ]
    found = found or difflib.get_close_matches(name.lower(), known, n=1)
    return [known[item] for item in found[:most]]


def _words(name: str) -> list[str]:
    return re.split(r"[-_]+", name.lower().strip("-_"))


def ending(status: str, error: dict[str, Any] | None) -> str:
    """Return `failed (moderation)`, `timed out`: the kind only where it says more than the status."""
    kind = (error or {}).get("kind")
    is_said = kind in {None, status, "timeout"}
    return status.replace("_", " ") + ("" if is_said else f" ({kind})")
