"""What there is to see of a folder at one moment."""

from __future__ import annotations

from collections.abc import Sequence

from batch.frozen import frozen


@frozen
class View:
    """The state of a folder at one moment.

    *done* of *all* jobs are here or have failed; *notes* are sentences about the whole run, *troubles*
    about single jobs, the latest last. None: not known, or not to be shown.
    """

    name: str
    done: int
    all: int
    generating: int
    downloading: int
    failed: int
    spent_usd: float
    budget_usd: float | None = None
    bytes_per_s: float | None = None
    elapsed_s: float | None = None
    left: str | None = None
    notes: Sequence[str] = ()
    troubles: Sequence[str] = ()
