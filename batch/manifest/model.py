"""A manifest that has been read and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import NamedTuple

from batch.errors import Problem
from batch.frozen import frozen
from batch.job import Job
from batch.key import NO_SECRET, Secret
from batch.manifest.limits import DEFAULT_LIMITS, Limits
from batch.prices import Overrides
from batch.target import Target


class Callback(NamedTuple):
    """The receiver: the public *url* that the provider calls, and HOST:PORT to *listen* on."""

    url: str | None = None
    listen: str | None = None


class Pings(NamedTuple):
    """Whom a monitor's address is for: *url* for all of a run, or one for each way that it goes."""

    url: Secret = NO_SECRET
    start: Secret = NO_SECRET
    success: Secret = NO_SECRET
    failure: Secret = NO_SECRET

    def __iter__(self) -> Iterator[Secret]:
        return filter(None, (self.url, self.start, self.success, self.failure))


class Notify(NamedTuple):
    """Who is told of a run, and when: *on* is `news`, `trouble` or `always`; pings are always sent.

    Addresses are as written, `env:NAME` or a URL, and secret: most hooks take what anyone sends.
    """

    on: str = "news"
    command: tuple[str, ...] = ()
    webhook: Secret = NO_SECRET
    pings: Pings = Pings()
    timeout_s: float = 10.0


@frozen
class Derived:
    """What is written beside the videos: *sidecars* are `json` and `xmp`; *index* is index.json."""

    sidecars: frozenset[str] = frozenset()
    index: bool = False

    def __bool__(self) -> bool:
        return bool(self.sidecars) or self.index


class Keep(NamedTuple):
    """Which former versions `kling-batch prune --versions` keeps: what either of the two says.

    *versions* of each job, the newest ones, and those displaced *within_s*; None says nothing, and
    where both are None all are kept.
    """

    versions: float | None = None
    within_s: float | None = None

    def keeps(self, number: int, displaced_s: float) -> bool:
        """Return whether a job's version is kept: *number* 1 is the newest; displaced so long ago."""
        is_counted = self.versions is not None and number <= self.versions
        is_young = self.within_s is not None and displaced_s < self.within_s
        return is_counted or is_young or (self.versions is None and self.within_s is None)


@frozen
class Manifest:
    """A checked manifest. `output_dir` is as written, relative to the manifest."""

    path: Path
    name: str
    jobs: Sequence[Job]
    limits: Limits = DEFAULT_LIMITS
    callback: Callback | None = None
    output_dir: Path | None = None
    base_url: str | None = None
    proxy: str | None = None
    prices: Overrides = field(default_factory=dict)
    notify: Notify = field(default_factory=Notify)
    derived: Derived = field(default_factory=Derived)
    keep: Keep = field(default_factory=Keep)
    target: Target | None = None
    warnings: tuple[Problem, ...] = ()
