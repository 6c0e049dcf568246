"""Which jobs `--select` takes in."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence


def is_selected(job_id: str, tags: Sequence[str], patterns: Sequence[str]) -> bool:
    """Tell whether one of *patterns* (globs over ids, or `tag:NAME`) takes the job in."""
    if not patterns:
        return True
    return any(
        fnmatch.fnmatchcase(job_id, pattern)
        or (
            pattern.startswith("tag:")
            and any(fnmatch.fnmatchcase(tag, pattern[4:]) for tag in tags)
        )
        for pattern in patterns
    )
